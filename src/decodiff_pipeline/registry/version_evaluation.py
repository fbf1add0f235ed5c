"""Evaluates registered versions on the current test images, and compares the challenger."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
import pandas as pd

from decodiff_pipeline.deco.device import resolve_device
from decodiff_pipeline.deco.loading import load_pipeline
from decodiff_pipeline.deco.regions import with_regions
from decodiff_pipeline.errors import ModelError, StoreError
from decodiff_pipeline.evaluation import assessment, record
from decodiff_pipeline.evaluation.predictions import PredictionStore
from decodiff_pipeline.evaluation.scoring import describe, score_images
from decodiff_pipeline.registry import model_comparison
from decodiff_pipeline.registry.evaluation_records import find_record, keep_record
from decodiff_pipeline.registry.model_comparison import RECALL, GateInputs
from decodiff_pipeline.registry.versions import ROLLED_BACK
from decodiff_pipeline.serving.served_version import differing, logged_folder
from decodiff_pipeline.serving.serving_check import ServingResult, check_serving, sample_rows
from decodiff_pipeline.tracking.mlflow_values import UNKNOWN, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.deco.regions import Region
    from decodiff_pipeline.evaluation.config import EvaluationConfig
    from decodiff_pipeline.registry.config import PromotionConfig
    from decodiff_pipeline.registry.versions import Version

logger = logging.getLogger(__name__)

LOCK = ".lock"  # name of the lock file in a work folder


@dataclass(frozen=True)
class EvaluationContext:
    """Data and settings of the evaluation of versions."""

    manifest: pd.DataFrame  # validated
    images: ImageFolder  # raw images
    folder: Path  # for temporary predictions
    # Batch size, resolution and AUPRO limit. The protocol is always the strict one, and the number
    # of reverse steps always the model's.
    evaluation: EvaluationConfig
    config: PromotionConfig


@dataclass(frozen=True)
class VersionEvaluation:
    """Evaluation record, thresholds and regions of a version."""

    categories: tuple[str, ...]  # of the model
    thresholds: Mapping[str, Any]  # registered with the version
    tests: pd.DataFrame  # rows of the record for the test images
    # category → inspected region of its images; by default the whole image
    regions: Mapping[str, Region] = field(default_factory=dict)


class ChangedFiles(ModelError):
    """The files of a version differ from the registered ones."""


def evaluate_version(
    version: Version, context: EvaluationContext, regions: Mapping[str, Region] | None = None
) -> VersionEvaluation:
    """Evaluate a version with its files from the artifact store.

    The stored record of an earlier evaluation is used if model, test images, protocol and code are
    the same and the model reproduces the stored scores of a sample. Otherwise the test images are
    scored, and the record is stored with the version.

    Args:
        regions: Category → inspected region; by default the model's.

    Raises:
        ChangedFiles: The files differ from the registered ones.
        ModelError: The files are missing or cannot be loaded.
        StoreError: The files cannot be downloaded now.
    """
    with tempfile.TemporaryDirectory() as folder:
        local = _download(version, folder)
        try:
            changed = differing(local, version.tags)
            thresholds = json.loads((local / "artifacts" / "thresholds.json").read_bytes())
        except (OSError, ValueError) as error:
            msg = f"the files of {version.uri} cannot be read: {first_line(error)}"
            raise ModelError(msg) from error
        if changed:
            msg = f"the files of {version.uri} differ from its tags {' and '.join(changed)}"
            raise ChangedFiles(msg)
        model = load_pipeline(logged_folder(local), "restore its files, or register it again")
        model.to(resolve_device())
        model_regions = model.regions
        with with_regions(model, model_regions if regions is None else regions):
            table = _evaluation_record(model, version, context)
    tests = table[table["split"] == "test"]
    return VersionEvaluation(tuple(model.categories), thresholds, tests, model_regions)


def _evaluation_record(
    model: DeCoDiffPipeline, version: Version, context: EvaluationContext
) -> pd.DataFrame:
    """The stored record of a version if it is valid, else a new one."""
    from mlflow import MlflowClient

    config = context.evaluation.model_copy(
        update={"protocol": "strict", "num_inference_steps": None}
    )
    manifest = context.manifest[context.manifest["category"].isin(model.categories)]
    tests = manifest[manifest["split"] == "test"]
    if tests.empty:
        return pd.DataFrame(columns=list(record.COLUMNS))
    images = context.images.of(tests, model.bit_depths)

    def score(rows: pd.DataFrame, folder: Path) -> PredictionStore:
        store = PredictionStore(folder)
        score_images(model, rows, images, store, config)
        return store

    identity = record.identity(describe(model, tests, config), manifest, images, config)
    client = MlflowClient()
    stored = find_record(client, version.run_id, identity)
    with work_folder(context.folder) as folder:
        if stored is not None:
            sample = sample_rows(tests, context.config.serving.images)
            scores = score(sample, folder / "sample").index()
            if _agrees(stored, scores, context.config.serving.tolerance):
                logger.info("%s: using its stored evaluation", version.uri)
                return stored
            logger.warning(
                "%s: the scores of its stored evaluation differ; evaluating it again", version.uri
            )
        store = score(tests, folder / "predictions")
        new = assessment.image_record(store, manifest, images, config)
    try:
        keep_record(client, version.run_id, new)
    except Exception as error:  # the next promotion scores the images again
        logger.warning("the evaluation of %s is not stored: %s", version.uri, first_line(error))
    return new


def _agrees(stored: pd.DataFrame, scored: pd.DataFrame, tolerance: float) -> bool:
    """Whether the stored scores of the scored images are equal within the tolerance."""
    expected = stored.set_index("path")["score"].reindex(scored["path"]).to_numpy()
    return bool((np.abs(scored["score"].to_numpy() - expected) <= tolerance).all())


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder of this run; also removes the folders of runs that were killed."""
    parent.mkdir(parents=True, exist_ok=True)
    for lock in parent.glob(f"run-*/{LOCK}"):
        try:
            with filelock.FileLock(lock, timeout=0):
                shutil.rmtree(lock.parent, ignore_errors=True)
        except (filelock.Timeout, OSError):
            continue  # the run is still active
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
    with filelock.FileLock(folder / LOCK):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _download(version: Version, folder: str) -> Path:
    """Download a version's files; missing files are an error of the version, not of the store."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return Path(mlflow.artifacts.download_artifacts(version.uri, dst_path=folder))
    except (MlflowException, OSError) as error:
        msg = f"the files of {version.uri} cannot be fetched: {first_line(error)}"
        if _is_missing(version):
            raise ModelError(msg) from error
        raise StoreError(f"{msg}; nothing was judged, promote again when MLflow answers") from error


def _is_missing(version: Version) -> bool:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return not mlflow.artifacts.list_artifacts(artifact_uri=version.uri)
    except MlflowException as error:
        return error.error_code == UNKNOWN
    except OSError:
        return False


def evaluate_challenger(
    challenger: Version, champion: Version | None, context: EvaluationContext, notes: list[str]
) -> GateInputs:
    """Evaluate both versions, with one model in memory at a time, and compare them.

    Args:
        notes: Notes for the audit log, to which this function adds.

    Raises:
        StoreError: MLflow's artifact store does not answer, or the disk is full.
    """
    config, evaluation = context.config, context.evaluation
    try:
        ours = evaluate_version(challenger, context)
    except ChangedFiles:
        return GateInputs(ServingResult(files_as_registered=False))
    except ModelError as error:
        return GateInputs(ServingResult(error=str(error)))
    samples = model_comparison.samples_of(ours.tests, pixels=config.needs_pixels())
    pca = model_comparison.pca_samples(
        ours.tests, context.manifest, context.images, set(samples), ours.regions
    )
    recalls = model_comparison.recalls(ours.tests, ours.thresholds)
    inputs = GateInputs(
        serving=_check_serving(challenger, ours, context),
        metrics={
            name: {**model_comparison.metrics_of(sample, evaluation), RECALL: recalls.get(name)}
            for name, sample in samples.items()
        },
        thresholds=model_comparison.threshold_fits(ours.thresholds),
        false_positives=model_comparison.false_positives(ours.tests, ours.thresholds),
        baseline=model_comparison.compare(samples, pca, config, evaluation),
        rolled_back=challenger.tags.get(ROLLED_BACK) or None,
    )
    _note_unjudged(ours, set(samples), context, notes)
    if champion is None:
        return inputs
    try:
        theirs = evaluate_version(champion, context, ours.regions)
    except ModelError as error:
        notes.append("whether a category of the champion is lost is not known")
        return dataclasses.replace(inputs, champion_error=str(error))
    if theirs.regions != ours.regions:
        notes.append("the champion counts other regions: both are judged within the challenger's")
    new = sorted(set(ours.categories) - set(theirs.categories))
    if new:
        notes.append(f"new with the challenger, so compared with no champion: {', '.join(new)}")
    champion_samples = model_comparison.samples_of(theirs.tests, pixels=config.needs_pixels())
    return dataclasses.replace(
        inputs,
        champion=model_comparison.compare(samples, champion_samples, config, evaluation),
        lost=tuple(sorted(set(theirs.categories) - set(ours.categories))),
    )


def _check_serving(
    version: Version, evaluated: VersionEvaluation, context: EvaluationContext
) -> ServingResult:
    limits = context.config.serving
    rows = sample_rows(evaluated.tests, limits.images)
    if rows.empty:
        return ServingResult(error="there is no test image of its categories to answer")
    result, scores = check_serving(
        version.uri, version.tags, context.images, rows, limits.timeout_s
    )
    if not scores:
        return result
    errors = [abs(served - stored) for served, stored in zip(scores, rows["score"], strict=True)]
    return dataclasses.replace(result, largest_error=float(max(errors)))


def _note_unjudged(
    challenger: VersionEvaluation, measured: set[str], context: EvaluationContext, notes: list[str]
) -> None:
    known, in_data = set(challenger.categories), set(context.manifest["category"])
    for names, note in (
        (in_data - known, "in the data and unknown to the challenger, so not judged"),
        (known - measured, "known to the challenger and without test images"),
    ):
        if names:
            notes.append(f"{note}: {', '.join(sorted(names))}")
