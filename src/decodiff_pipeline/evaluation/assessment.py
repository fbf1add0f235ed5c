"""Everything there is to say about each category, in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from decodiff_pipeline.evaluation.cropping import cropped_defects, cropped_share
from decodiff_pipeline.evaluation.masks import with_ground_truth
from decodiff_pipeline.evaluation.metrics import Metrics, image_metrics
from decodiff_pipeline.evaluation.protocols import (
    labelled,
    measure_pixels,
    require_same_protocol,
    warn_of_other_sizes,
)
from decodiff_pipeline.evaluation.summary import mean_over_categories

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.evaluation.config import EvaluationConfig
    from decodiff_pipeline.evaluation.predictions import PredictionStore


def assess(
    predictions: PredictionStore,
    images: ImageFolder,
    thresholds: Mapping[str, Any],
    baseline: Mapping[str, Any],
    config: EvaluationConfig,
) -> dict[str, Any]:
    """Compare predictions with the truth.

    Args:
        predictions: The scored images.
        images: The raw images, for the masks.
        thresholds: As `thresholds.fit_thresholds` returns them.
        baseline: As `baselines.pca_baseline` returns it.
        config: Protocol and limit of AUPRO.

    Returns:
        The content of ``metrics.json``; ``None`` wherever there is nothing to measure.

    Raises:
        DataError: The baseline was measured by another protocol.
    """
    require_same_protocol(baseline, "baseline_metrics", config.protocol)
    index, geometry = predictions.index(), predictions.geometry()
    warn_of_other_sizes(geometry, config.protocol)
    categories = {}
    for category in sorted(set(index["category"])):
        rows = index[(index["category"] == category) & (index["split"] == "test")]
        threshold = thresholds["categories"].get(category, {}).get("threshold")
        categories[category] = _category(category, rows, threshold, predictions, images, config)
    return {
        "categories": categories,
        "mean": mean_over_categories(categories),
        "baseline": dict(baseline),
        "protocol": config.protocol,
        "aupro_limit": config.aupro_limit,
        "cropped_share": cropped_share(geometry),
    }


def _category(
    category: str,
    original: pd.DataFrame,
    threshold: float | None,
    predictions: PredictionStore,
    images: ImageFolder,
    config: EvaluationConfig,
) -> dict[str, Any]:
    """The metrics of one category, from its test images as the manifest labels them."""
    geometry = predictions.geometry()
    rows = labelled(original, images, geometry, config.protocol)
    certain = rows[rows["label"].isin(["good", "defective"])]
    defective = (certain["label"] == "defective").to_numpy()
    return {
        **image_metrics(certain["score"].to_numpy(), defective),
        **_pixel_metrics(category, certain, predictions, images, config),
        "n_good": int((~defective).sum()),
        "n_defective": int(defective.sum()),
        "n_masks": int(certain["mask_path"].notna().sum()),
        "n_relabelled": int((rows["label"] != original["label"]).sum()),
        "cropped_defects": cropped_defects(original, images, geometry),
        "threshold": threshold,
        "false_positive_rate": _flagged(certain, "good", threshold),
        "false_negative_rate": _missed(certain, threshold),
        "uncertain": _uncertain(rows, threshold),
    }


def _pixel_metrics(
    category: str,
    rows: pd.DataFrame,
    predictions: PredictionStore,
    images: ImageFolder,
    config: EvaluationConfig,
) -> Metrics:
    rows = with_ground_truth(rows)
    maps = MapsOf(predictions.maps(category), rows["row"].to_numpy())
    return measure_pixels(maps, rows, images, predictions.geometry(), config)


def _flagged(rows: pd.DataFrame, label: str, threshold: float | None) -> float | None:
    scores = rows["score"][rows["label"] == label]
    if threshold is None or scores.empty:
        return None
    return float((scores.to_numpy(np.float64) >= threshold).mean())


def _missed(rows: pd.DataFrame, threshold: float | None) -> float | None:
    flagged = _flagged(rows, "defective", threshold)
    return None if flagged is None else 1 - flagged


def _uncertain(rows: pd.DataFrame, threshold: float | None) -> dict[str, Any] | None:
    """Images whose label nobody is sure of, by their type and apart from all else."""
    uncertain = rows[rows["label"] == "uncertain"]
    if uncertain.empty:
        return None
    good = rows[rows["label"] == "good"]
    result = {}
    for kind, group in uncertain.groupby("defect_type", sort=True):
        scores = np.concatenate([good["score"], group["score"]])
        against_good = image_metrics(scores, np.arange(len(scores)) >= len(good))
        result[str(kind)] = {
            "n": len(group),
            "flagged_share": _flagged(group, "uncertain", threshold),
            "image_auroc_against_good": against_good["image_auroc"],
        }
    return result


class MapsOf:
    """Some rows of a memory-mapped array, without copying them."""

    def __init__(self, maps: np.ndarray, rows: np.ndarray) -> None:
        self._maps = maps
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._maps[self._rows[index]]
