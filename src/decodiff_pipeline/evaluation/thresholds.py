"""Fits the thresholds of each category to its calibration images, or by costs to labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from decodiff_pipeline.data.splits import CALIBRATION, TEST
from decodiff_pipeline.metrics.thresholds import cheapest_threshold, conformal_threshold

if TYPE_CHECKING:
    from decodiff_pipeline.evaluation.config import CostConfig
    from decodiff_pipeline.evaluation.predictions import PredictionStore


ON_LABELS = "labels"


def fit_thresholds(
    predictions: PredictionStore, false_positive_rate: float, costs: CostConfig | None = None
) -> dict[str, Any]:
    """Image and pixel thresholds of each category, from its ``calibration`` images.

    The pixel threshold is fitted to the maximum of each image's map, since pixels of one image
    are not exchangeable with those of another. It bounds the share of good images with at least
    one flagged pixel. If the image score is the maximum, both thresholds are equal.

    Args:
        false_positive_rate: Target share of flagged good images, in (0, 1).
        costs: If given, image thresholds minimise the expected cost, for categories with
            calibration images and defective test images, whose labels they are fitted to.

    Returns:
        ``false_positive_rate`` and ``categories``: for each ``threshold``,
        ``pixel_threshold``, ``promised_false_positive_rate``, ``sufficient`` and
        ``n_calibration``. Thresholds are ``None`` without calibration images. By costs, also
        ``fitted_on`` ("labels"), ``n_defective``, ``expected_cost`` and ``costs``.
    """
    index = predictions.index()
    categories = {}
    for category in sorted(set(index["category"])):
        rows = index[(index["category"] == category) & (index["split"] == CALIBRATION)]
        maps = predictions.maps(category)
        maxima = np.array([maps[row].max() for row in rows["row"]], np.float32)
        pixel = conformal_threshold(maxima, false_positive_rate)
        good = rows["score"].to_numpy()
        categories[category] = {
            **conformal_threshold(good, false_positive_rate),
            "pixel_threshold": pixel["threshold"],
            "n_calibration": len(rows),
        }
        defective = index[
            (index["category"] == category)
            & (index["split"] == TEST)
            & (index["label"] == "defective")
        ]["score"].to_numpy()
        if costs is not None and len(good) and len(defective):
            categories[category] |= {
                **cheapest_threshold(good, defective, **costs.model_dump()),
                "fitted_on": ON_LABELS,
                "n_defective": len(defective),
                "costs": costs.model_dump(),
            }
    return {"false_positive_rate": false_positive_rate, "categories": categories}
