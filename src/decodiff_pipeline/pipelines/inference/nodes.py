"""Nodes of the inference pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from decodiff_pipeline.compute.config import ONE_PROCESS, ComputeConfig
from decodiff_pipeline.data.manifest import DataConfig
from decodiff_pipeline.inference.config import InferenceConfig
from decodiff_pipeline.inference.source import InferenceSource
from decodiff_pipeline.inference.store import InferenceStore


def infer(
    source: InferenceSource,
    model_folder: Path,
    onnx_folder: Path,
    thresholds: dict[str, Any],
    store: InferenceStore,
    config: InferenceConfig,
    data: DataConfig,
    compute: ComputeConfig = ONE_PROCESS,
    overrides: Path | None = None,
) -> pd.DataFrame:
    """Score new or changed images and decide on all images; see `inference.run.infer`.

    Args:
        overrides: File of thresholds that were set in the app for this model.
    """
    from decodiff_pipeline.inference import run

    if overrides is not None:
        config = run.with_overrides(config, overrides, model_folder)
    return run.infer(
        source, model_folder, onnx_folder, thresholds, store, config, data.max_pixels, compute
    )


def export_results(results: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The results for a CSV file, and the detections as COCO annotations."""
    from decodiff_pipeline.inference.results import as_coco

    return results, as_coco(results)


def report_unreadable(results: pd.DataFrame) -> None:
    """Fail if images could not be scored."""
    from decodiff_pipeline.inference.results import require_readable

    require_readable(results)
