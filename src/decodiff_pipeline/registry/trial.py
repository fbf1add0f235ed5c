"""The trial of a new version: everything that is measured before a gate is asked."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.deco.device import resolve_device
from decodiff_pipeline.deco.loading import load_pipeline
from decodiff_pipeline.errors import ModelError, StoreError
from decodiff_pipeline.evaluation.predictions import PredictionStore
from decodiff_pipeline.registry import contest
from decodiff_pipeline.registry.evidence import Evidence
from decodiff_pipeline.registry.versions import ROLLED_BACK
from decodiff_pipeline.serving.served_version import differing, logged_folder
from decodiff_pipeline.serving.serving_check import ServingResult, check_serving, chosen
from decodiff_pipeline.tracking.mlflow_values import UNKNOWN, first_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.evaluation.config import EvaluationConfig
    from decodiff_pipeline.registry.config import PromotionConfig
    from decodiff_pipeline.registry.versions import Version


@dataclass(frozen=True)
class Arena:
    """What both versions are judged on, and how.

    Attributes:
        manifest: The validated manifest.
        images: The raw images.
        folder: For the predictions.
        evaluation: Batch size and limit of AUPRO.
        config: Gates.
    """

    manifest: pd.DataFrame
    images: ImageFolder
    folder: Path
    evaluation: EvaluationConfig
    config: PromotionConfig


@dataclass(frozen=True)
class _Scored:
    """What a version made of the test images."""

    categories: tuple[str, ...]
    thresholds: Mapping[str, Any]
    index: pd.DataFrame
    samples: contest.Samples


def evidence_of(
    challenger: Version, champion: Version | None, arena: Arena, notes: list[str]
) -> Evidence:
    """Score both versions, one after the other so that one is in memory, and measure everything.

    Args:
        challenger: The version to judge.
        champion: The one it would replace, if there is one.
        arena: Data and limits.
        notes: Sentences are added that explain what the numbers do not.

    Raises:
        StoreError: MLflow's artifact store does not answer, or the disk is full.
    """
    config = arena.config
    try:
        ours = _scored(challenger, arena, "challenger")
    except _Tampered:
        return Evidence(ServingResult(files_as_registered=False))
    except ModelError as error:
        return Evidence(ServingResult(error=str(error)))
    evidence = Evidence(
        serving=_served(challenger, ours, arena),
        metrics={
            name: contest.metrics_of(sample, arena.evaluation)
            for name, sample in ours.samples.items()
        },
        false_positives=contest.false_positives(ours.index, ours.thresholds),
        baseline=contest.compare(
            ours.samples,
            contest.pca_samples(arena.manifest, arena.images, set(ours.samples)),
            config,
            arena.evaluation,
        ),
        rolled_back=challenger.tags.get(ROLLED_BACK) or None,
    )
    _note_unjudged(ours, arena, notes)
    if champion is None:
        return evidence
    try:
        theirs = _scored(champion, arena, "champion")
    except ModelError as error:
        notes.append("whether a category of the champion is lost is not known")
        return dataclasses.replace(evidence, champion_error=str(error))
    new = sorted(set(ours.categories) - set(theirs.categories))
    if new:
        notes.append(f"new with the challenger, so compared with no champion: {', '.join(new)}")
    return dataclasses.replace(
        evidence,
        champion=contest.compare(ours.samples, theirs.samples, config, arena.evaluation),
        lost=tuple(sorted(set(theirs.categories) - set(ours.categories))),
    )


def _loaded(folder: Path) -> DeCoDiffPipeline:

    model = load_pipeline(folder, "register it again, or restore its files")
    return model.to(resolve_device())


class _Tampered(ModelError):
    """The files of a version are not those that were registered."""


def _scored(version: Version, arena: Arena, role: str) -> _Scored:
    """Score a version's own files as they are in the artifact store.

    Raises:
        ModelError: They are gone, are not the registered ones, or cannot be loaded.
        StoreError: They are there and cannot be had now.
    """
    with tempfile.TemporaryDirectory() as folder:
        local = _downloaded(version, folder)
        try:
            changed = differing(local, version.tags)
            thresholds = json.loads((local / "artifacts" / "thresholds.json").read_bytes())
        except (OSError, ValueError) as error:
            msg = f"the files of {version.uri} cannot be read: {first_line(error)}"
            raise ModelError(msg) from error
        if changed:
            msg = f"the files of {version.uri} differ from its tags {' and '.join(changed)}"
            raise _Tampered(msg)
        model = _loaded(logged_folder(local))
        store = PredictionStore(arena.folder / role)
        tests = arena.manifest[arena.manifest["split"] == "test"]
        index = contest.score(model, tests, arena.images, store, arena.evaluation)
        categories = tuple(model.categories)
    pixels = arena.config.needs_pixels()
    samples = contest.samples_of(store, arena.images, arena.evaluation, pixels=pixels)
    return _Scored(categories, thresholds, index, samples)


def _downloaded(version: Version, folder: str) -> Path:
    """A copy of a version's files. That a store is away for a moment is nothing against it."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return Path(mlflow.artifacts.download_artifacts(version.uri, dst_path=folder))
    except (MlflowException, OSError) as error:
        msg = f"the files of {version.uri} cannot be fetched: {first_line(error)}"
        if _are_gone(version):
            raise ModelError(msg) from error
        raise StoreError(f"{msg}; nothing was judged, promote again when MLflow answers") from error


def _are_gone(version: Version) -> bool:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return not mlflow.artifacts.list_artifacts(artifact_uri=version.uri)
    except MlflowException as error:
        return error.error_code == UNKNOWN
    except OSError:
        return False


def _served(version: Version, ours: _Scored, arena: Arena) -> ServingResult:
    limits = arena.config.serving
    rows = chosen(ours.index, limits.images)
    if rows.empty:
        return ServingResult(error="there is no test image of its categories to answer")
    serving, scores = check_serving(version.uri, version.tags, arena.images, rows, limits.timeout_s)
    if not scores:
        return serving
    errors = [abs(one - other) for one, other in zip(scores, rows["score"], strict=True)]
    return dataclasses.replace(serving, largest_error=float(max(errors)))


def _note_unjudged(ours: _Scored, arena: Arena, notes: list[str]) -> None:
    known, there = set(ours.categories), set(arena.manifest["category"])
    for names, why in (
        (there - known, "in the data and unknown to the challenger, so not judged"),
        (known - set(ours.samples), "known to the challenger and without test images"),
    ):
        if names:
            notes.append(f"{why}: {', '.join(sorted(names))}")
