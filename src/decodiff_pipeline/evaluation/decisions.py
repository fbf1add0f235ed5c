"""What the thresholds decide on the test images: right, wrong, and how often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from decodiff_pipeline.evaluation.metrics import Maps, Masks


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
        what the threshold makes a promise of; ``pixel_false_negative_rate``: share of the
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
