"""The thresholds of every category, fitted to its calibration images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from decodiff_pipeline.data.splits import CALIBRATION
from decodiff_pipeline.metrics.thresholds import conformal_threshold

if TYPE_CHECKING:
    from decodiff_pipeline.evaluation.predictions import PredictionStore


def fit_thresholds(predictions: PredictionStore, false_positive_rate: float) -> dict[str, Any]:
    """Image and pixel thresholds of every category, from its ``calibration`` images alone.

    The pixel threshold is fitted to the largest value of each image's map, since the pixels of
    one image are not exchangeable with those of another: in a good image, with the same
    probability, no pixel at all is flagged. Where the image score is that largest value, the two
    thresholds are one.

    Args:
        false_positive_rate: Share of good images that may be flagged, in (0, 1).

    Returns:
        ``false_positive_rate`` and ``categories``: for each ``threshold``,
        ``pixel_threshold``, ``promised_false_positive_rate``, ``sufficient`` and
        ``n_calibration``. Thresholds are ``None`` without calibration images.
    """
    index = predictions.index()
    categories = {}
    for category in sorted(set(index["category"])):
        rows = index[(index["category"] == category) & (index["split"] == CALIBRATION)]
        maps = predictions.maps(category)
        maxima = np.array([maps[row].max() for row in rows["row"]], np.float32)
        pixel = conformal_threshold(maxima, false_positive_rate)
        categories[category] = {
            **conformal_threshold(rows["score"].to_numpy(), false_positive_rate),
            "pixel_threshold": pixel["threshold"],
            "n_calibration": len(rows),
        }
    return {"false_positive_rate": false_positive_rate, "categories": categories}
