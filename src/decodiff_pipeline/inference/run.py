"""Inference on a folder or a table of images, in one process or several."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.compute.config import (
    ONE_PROCESS,
    ComputeConfig,
    plan_images,
    use_threads,
)
from decodiff_pipeline.compute.launch import launch
from decodiff_pipeline.data.decoding import MAX_PIXELS
from decodiff_pipeline.data.file_names import nfc
from decodiff_pipeline.deco.config import AUTO
from decodiff_pipeline.deco.digests import folder_sha256
from decodiff_pipeline.deco.recognition import FOLDER, without_recogniser
from decodiff_pipeline.deco.weights import WEIGHTS_FILE
from decodiff_pipeline.errors import ConfigurationError, ModelError
from decodiff_pipeline.export.onnx_model import check_export
from decodiff_pipeline.inference.results import Limits, log_summary, tabulate
from decodiff_pipeline.inference.scoring import ScoringJob, ScoringRun
from decodiff_pipeline.inference.store import Journal
from decodiff_pipeline.serving.thresholds import check_overrides, read_overrides, threshold_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from decodiff_pipeline.compute.group import Group
    from decodiff_pipeline.inference.config import InferenceConfig
    from decodiff_pipeline.inference.source import InferenceSource, Item
    from decodiff_pipeline.inference.store import InferenceStore

logger = logging.getLogger(__name__)

# Bytes of a network's weights; a larger network uses all cores in one process.
SMALL = 200_000_000


def infer(
    source: InferenceSource,
    model: Path,
    onnx: Path,
    thresholds: Mapping[str, Any],
    store: InferenceStore,
    config: InferenceConfig,
    max_pixels: int = MAX_PIXELS,
    compute: ComputeConfig = ONE_PROCESS,
) -> pd.DataFrame:
    """Score new or changed images, write their maps and overlays, and decide on all images.

    Args:
        onnx: The model's ONNX export; only the backend ``onnxruntime`` needs it.
        store: Receives maps, overlays and the journal.
        compute: Determines the number of processes; ONNX Runtime uses one with all cores.

    Returns:
        A row per image, in the order of the source, with `results.COLUMNS`.

    Raises:
        DataError: The source is empty or inconsistent, or the store cannot be written.
        ConfigurationError: The store is inside of the source, a threshold is set for an unknown
            category, or the backend's package is missing.
        ModelError: There is no model, it does not know a category of the source, or the ONNX
            export is missing, damaged or of another model.
        ComputeError: A process was killed; the same call resumes.
    """
    _require_output_outside(source.path, store.path)
    digest, known = folder_sha256(model), model_categories(model)
    only = known[0] if len(known) == 1 else None
    items = as_the_model_spells(source.items(config.category, only), known)
    export = onnx if config.backend == "onnxruntime" else None
    if export is not None:
        check_export(export, digest)
    _check_categories(items, known, model)
    check_overrides(config.thresholds, known, "inference.thresholds")
    check_overrides(config.pixel_thresholds, known, "inference.pixel_thresholds")
    categories = {item.category for item in items}
    limits = _limits(categories if categories <= {*known} else {*known}, thresholds, config)
    job = ScoringJob(
        items=items, source=source.path, model=model, export=export, digest=digest, known=known,
        limits=limits, store=store.path, config=config, max_pixels=max_pixels,
    )  # fmt: skip
    with store.writing() as journal:
        scored = _score_new(job, journal, compute)
        rows = journal.finish([item.path for item in items])
    results = tabulate(rows, limits)
    log_summary(results, scored, store.path)
    return results


def with_overrides(config: InferenceConfig, file: Path, model: Path) -> InferenceConfig:
    """Add the thresholds that were set in the app to the parameters, which take precedence.

    Args:
        file: As the app writes it (docs/app.md); may be missing.

    Raises:
        ConfigurationError: The file is damaged.
        ModelError: There is no model.
    """
    if not file.is_file():
        return config
    overrides = read_overrides(file, model_categories(model), folder_sha256(model))
    return config.model_copy(update={"thresholds": overrides | config.thresholds})


def _score_new(job: ScoringJob, journal: Journal, compute: ComputeConfig) -> int:
    """Score new or changed images; returns their number."""
    new = sum(item.path not in journal.rows for item in job.items)
    size = (job.model / "unet" / WEIGHTS_FILE).stat().st_size
    workers = plan_images(compute if job.export is None else ONE_PROCESS, new, small=size < SMALL)
    if workers.processes > 1:
        scored = sum(launch(f"{__name__}:score_rank", job, workers))
        journal.load()
        return scored
    with use_threads(workers.threads):
        return ScoringRun(job, journal).score(job.items)


def score_rank(content: str, group: Group) -> int:
    """Score as one of several processes; returns the number of images."""
    job = ScoringJob.model_validate_json(content)
    run = ScoringRun(job, Journal(job.store, shared=True))
    return run.score(job.items[group.part(len(job.items))])


def _require_output_outside(source: Path, output: Path) -> None:
    if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        raise ConfigurationError(
            f"inference.output {output} lies in inference.source {source}: the next run would "
            "score its maps as images; name a folder outside"
        )


def _limits(
    categories: set[str], thresholds: Mapping[str, Any], config: InferenceConfig
) -> dict[str, Limits]:
    """The thresholds of each category; logs a warning if an image threshold is missing."""
    limits = {}
    for name in sorted(categories):
        image = config.thresholds.get(name, threshold_of(thresholds, name))
        pixel = threshold_of(thresholds, name, "pixel_threshold")
        limits[name] = Limits(image, config.pixel_thresholds.get(name, pixel))
        if image is None:
            logger.warning(
                "%s has no threshold, so its images get no decision; set inference.thresholds.%s",
                name,
                name,
            )
    return limits


def model_categories(model: Path) -> list[str]:
    """The categories of a saved pipeline, read from its configuration.

    Raises:
        ModelError: The configuration is missing or damaged.
    """
    path = model / "unet" / "config.json"
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["categories"])
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path} cannot be read ({error}); run {kedro_run('training')} to make it again"
        ) from error


def as_the_model_spells(items: Sequence[Item], known: Sequence[str]) -> list[Item]:
    """Replace categories by the model's spelling of them (Unicode normal form)."""
    spelling = {nfc(name): name for name in known}
    return [replace(one, category=spelling.get(nfc(one.category), one.category)) for one in items]


def _check_categories(items: Sequence[Item], known: Sequence[str], model: Path) -> None:
    for item in items:
        if item.category == AUTO and AUTO not in known:
            if not (model / FOLDER).is_dir():
                raise ModelError(f"{item.path} has no category: {without_recogniser(known)}")
        elif item.category not in known:
            raise ModelError(
                f"{item.path} has the category {item.category!r}, which the model does not know; "
                f"it knows {', '.join(known)} (inference.category names one for all images)"
            )
