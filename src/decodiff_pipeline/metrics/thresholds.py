"""Decision thresholds for a target false-positive rate, fitted to calibration images.

Split conformal prediction: for n calibration scores and the score of a new good image, all
exchangeable, the new score exceeds the k-th smallest of the n with a probability of at most
(n + 1 - k) / (n + 1), for any distribution. k = ⌈(n + 1)(1 - alpha)⌉ keeps it within alpha. For
n < 1/alpha - 1 there is no such k: the lowest rate that n images guarantee is 1 / (n + 1), with
the largest of them.

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

    An image is flagged if its score is at least the threshold. The threshold is the next float32
    number above the k-th smallest score, so that scores equal to it are not flagged; scores are
    clipped at 1, so ties occur.

    Args:
        scores: Scores of n good images, float32 (n,).
        false_positive_rate: Target rate alpha, in (0, 1).

    Returns:
        ``threshold`` and ``promised_false_positive_rate``, an upper bound of the expected share
        of good images at or above it; both ``None`` without scores. ``sufficient``: whether n is
        large enough for the target rate.
    """
    n = len(scores)
    if not n:
        return {"threshold": None, "promised_false_positive_rate": None, "sufficient": False}
    # 1e-9: a rounding error must not turn (19 + 1)(1 - 0.05) into 20.
    rank = math.ceil((n + 1) * (1 - false_positive_rate) - 1e-9)
    k = min(max(rank, 1), n)
    quantile = np.sort(np.asarray(scores, np.float32))[k - 1]
    return {
        "threshold": float(np.nextafter(quantile, np.float32(np.inf))),
        "promised_false_positive_rate": (n + 1 - k) / (n + 1),
        "sufficient": rank <= n,
    }


def cheapest_threshold(
    good: np.ndarray,
    defective: np.ndarray,
    miss: float,
    false_alarm: float,
    defective_share: float,
) -> dict[str, Any]:
    """The threshold with the lowest expected cost per image.

    With p the share of defective images in production, the cost is
    ``p · miss · false-negative rate + (1 - p) · false_alarm · false-positive rate``.

    Args:
        good: Scores of good images, float32 (n,), at least one.
        defective: Scores of defective images, float32 (m,), at least one.
        miss: Cost of a false negative.
        false_alarm: Cost of a false positive.
        defective_share: p, in (0, 1).

    Returns:
        ``threshold``, halfway between two scores or above the highest; the highest of equally
        cheap ones. Its ``expected_cost``; and ``promised_false_positive_rate``, the expected
        share of good images at or above it: (1 + flagged) / (n + 1).
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
    """Conformal p-value of a score: (1 + number of calibration scores ≥ it) / (n + 1).

    A share of at most p of unseen good images has a p-value of at most p.

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
    """Confusion matrix and error rates of an image threshold.

    Args:
        scores: Float (N,).
        defective: bool (N,).
        threshold: Images with at least this score are flagged.

    Returns:
        ``confusion`` (``tp``, ``fp``, ``fn``, ``tn``), ``false_positive_rate`` and
        ``false_negative_rate``; ``None`` without a threshold, a rate also without images.
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
    """Error rates of a pixel threshold, counted in images.

    Args:
        threshold: Pixels with at least this value are flagged.

    Returns:
        ``pixel_false_positive_rate``: share of good images with at least one flagged pixel, the
        rate that the threshold is fitted to; ``pixel_false_negative_rate``: share of defective
        images with a mask that have no flagged pixel on the defect.
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
