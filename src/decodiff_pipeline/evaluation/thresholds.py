"""Decision thresholds with a promise, from good images that nothing else has seen.

Conformal prediction: with n calibration scores and one new score of a good image, all
exchangeable, the new one is above the k-th smallest of the n with a probability of at most
(n + 1 - k) / (n + 1), whatever the distribution. k = ⌈(n + 1)(1 - alpha)⌉ keeps that within alpha.
If n < 1/alpha - 1 there is no such k: the best that n images can promise is 1 / (n + 1), at the
largest of them.

Source: Angelopoulos and Bates, "A Gentle Introduction to Conformal Prediction", 2021, section 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from decodiff_pipeline.evaluation.predictions import PredictionStore

CALIBRATION = "calibration"


def conformal_threshold(scores: np.ndarray, false_positive_rate: float) -> dict[str, Any]:
    """The lowest threshold that keeps the promise.

    An image is flagged where its score is at least the threshold. The threshold is the float32
    number just above the k-th smallest score, so that a score equal to that one is not flagged:
    with scores that are clipped at 1 ties do happen.

    Args:
        scores: Float32 (n,) of good images.
        false_positive_rate: alpha in the module's text, in (0, 1).

    Returns:
        ``threshold`` and ``promised_false_positive_rate``, the expected share of good images at
        or above it, at most; both ``None`` without scores. ``sufficient`` says whether n is
        large enough to promise what was asked.
    """
    n = len(scores)
    if not n:
        return {"threshold": None, "promised_false_positive_rate": None, "sufficient": False}
    # 1e-9: (19 + 1)(1 - 0.05) must not become 20 by a rounding error.
    wanted = math.ceil((n + 1) * (1 - false_positive_rate) - 1e-9)
    k = min(max(wanted, 1), n)
    quantile = np.sort(np.asarray(scores, np.float32))[k - 1]
    return {
        "threshold": float(np.nextafter(quantile, np.float32(np.inf))),
        "promised_false_positive_rate": (n + 1 - k) / (n + 1),
        "sufficient": wanted <= n,
    }


def fit_thresholds(predictions: PredictionStore, false_positive_rate: float) -> dict[str, Any]:
    """Image and pixel thresholds of every category, from its ``calibration`` images alone.

    The pixel threshold is fitted to the largest value of each image's map, since the pixels of
    one image are not exchangeable with those of another: in a good image, with the same
    probability, no pixel at all is flagged. Where the image score is that largest value, the two
    thresholds are one.

    Args:
        predictions: The scored images.
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
