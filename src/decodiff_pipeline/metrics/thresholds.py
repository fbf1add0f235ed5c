"""Decision thresholds with a target false-positive rate, from good images seen by nothing else.

Conformal prediction: with n calibration scores and one new score of a good image, all
exchangeable, the new one is above the k-th smallest of the n with a probability of at most
(n + 1 - k) / (n + 1), whatever the distribution. k = ⌈(n + 1)(1 - alpha)⌉ keeps that within alpha.
If n < 1/alpha - 1 there is no such k: the least rate that n images can guarantee is 1 / (n + 1),
at the largest of them.

Source: Angelopoulos and Bates, "A Gentle Introduction to Conformal Prediction", 2021, section 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from decodiff_pipeline.metrics.threshold_counts import Maps, Masks


def conformal_threshold(scores: np.ndarray, false_positive_rate: float) -> dict[str, Any]:
    """The lowest threshold that keeps the target false-positive rate.

    An image is flagged where its score is at least the threshold. The threshold is the float32
    number just above the k-th smallest score, so that a score equal to that one is not flagged:
    with scores that are clipped at 1 ties do happen.

    Args:
        scores: Float32 (n,) of good images.
        false_positive_rate: alpha in the module's text, in (0, 1).

    Returns:
        ``threshold`` and ``promised_false_positive_rate``, the expected share of good images at
        or above it, at most; both ``None`` without scores. ``sufficient`` says whether n is
        large enough for the rate that was asked for.
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


def cheapest_threshold(
    good: np.ndarray,
    defective: np.ndarray,
    miss: float,
    false_alarm: float,
    defective_share: float,
) -> dict[str, Any]:
    """The threshold of the least expected cost of an image.

    With p the share of defective images in use, the cost is
    ``p · miss · missed share + (1 - p) · false_alarm · flagged share of the good``.

    Args:
        good: Float32 (n,) scores of good images, at least one.
        defective: Float32 (m,) scores of defective images, at least one.
        miss: Cost of a defective image that passes.
        false_alarm: Cost of a good image that is flagged.
        defective_share: p, in (0, 1).

    Returns:
        ``threshold``, half way between two scores or above the highest, of several equally
        cheap ones the highest; its ``expected_cost``; and ``promised_false_positive_rate``, the
        share of good images at or above it that is expected: (1 + flagged) / (n + 1).
    """
    scores = np.unique(np.concatenate([good, defective]).astype(np.float32))
    above = np.nextafter(scores[-1], np.float32(np.inf))
    limits = np.concatenate([scores[:1], (scores[1:] + scores[:-1]) / 2, [above]])
    missed = np.searchsorted(np.sort(defective), limits, side="left") / len(defective)
    flagged = len(good) - np.searchsorted(np.sort(good), limits, side="left")
    share = flagged / len(good)
    costs = defective_share * miss * missed + (1 - defective_share) * false_alarm * share
    best = len(costs) - 1 - int(costs[::-1].argmin())
    return {
        "threshold": float(limits[best]),
        "expected_cost": float(costs[best]),
        "promised_false_positive_rate": float((1 + flagged[best]) / (len(good) + 1)),
    }


def conformal_p_value(score: float, calibration: np.ndarray) -> float | None:
    """How likely a good image is to score at least this high.

    (1 + number of calibration scores at or above it) / (n + 1). Of good images that the model has
    not seen, a share of at most p has a p-value of at most p.

    Args:
        calibration: Scores of n good images.

    Returns:
        Within 1/(n + 1)…1; ``None`` without calibration images.
    """
    if not len(calibration):
        return None
    return (1 + int((calibration >= score).sum())) / (len(calibration) + 1)


def image_decisions(
    scores: np.ndarray, defective: np.ndarray, threshold: float | None
) -> dict[str, Any]:
    """Count the images on each side of a threshold.

    Args:
        scores: Float (N,).
        defective: bool (N,).
        threshold: An image is flagged from this score on; ``None`` where there is none.

    Returns:
        ``confusion``: ``tp``, ``fp``, ``fn``, ``tn``, or ``None`` without a threshold;
        ``false_positive_rate`` of the good images and ``false_negative_rate`` of the defective
        ones, ``None`` where there is none of them.
    """
    if threshold is None:
        return dict.fromkeys(("confusion", "false_positive_rate", "false_negative_rate"))
    flagged = np.asarray(scores, np.float64) >= threshold
    counts = {
        "tp": int((flagged & defective).sum()),
        "fp": int((flagged & ~defective).sum()),
        "fn": int((~flagged & defective).sum()),
        "tn": int((~flagged & ~defective).sum()),
    }
    return {
        "confusion": counts,
        "false_positive_rate": _share(counts["fp"], counts["tn"]),
        "false_negative_rate": _share(counts["fn"], counts["tp"]),
    }


def pixel_decisions(maps: Maps, masks: Masks, threshold: float | None) -> dict[str, float | None]:
    """How often a pixel threshold speaks where it should not, and is silent where it should.

    Args:
        maps: Float (H, W) for each image.
        masks: bool (H, W) for each, or ``None`` for an image without defects.
        threshold: A pixel is flagged from this value on; ``None`` where there is none.

    Returns:
        ``pixel_false_positive_rate``: share of the good images with any pixel flagged, which is
        what the threshold is fitted to; ``pixel_false_negative_rate``: share of the
        defective images of known mask with no pixel of the defect flagged.
    """
    alarmed, missed = [], []
    if threshold is not None:
        for i in range(len(maps)):
            mask, anomaly_map = masks[i], maps[i]
            if mask is None:
                alarmed.append(bool(anomaly_map.max() >= threshold))
            elif mask.any():
                missed.append(not bool((anomaly_map[mask] >= threshold).any()))
    return {
        "pixel_false_positive_rate": float(np.mean(alarmed)) if alarmed else None,
        "pixel_false_negative_rate": float(np.mean(missed)) if missed else None,
    }


def _share(part: int, rest: int) -> float | None:
    return part / (part + rest) if part + rest else None
