"""AUPRO of the released DeCo-Diff code, only for comparison with published tables.

It overestimates, and it is undefined in some cases (docs/evaluation.md). Use `exact` otherwise.

Source: the released code of Beizaee et al., "Correcting Deviations from Normality", CVPR 2025.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from decodiff_pipeline.metrics.exact import AUPRO_5_LIMIT, AUPRO_LIMIT, pixel_metrics
from decodiff_pipeline.metrics.threshold_counts import defective_pixels

if TYPE_CHECKING:
    from decodiff_pipeline.metrics.exact import Metrics
    from decodiff_pipeline.metrics.threshold_counts import Maps, Masks

THRESHOLDS = 200
MIN_POINTS = 2  # of a curve with an area


def released_pixel_metrics(maps: Maps, masks: Masks, *, limit: float = AUPRO_LIMIT) -> Metrics:
    """As `exact.pixel_metrics`, with both AUPRO by `released_aupro`."""
    exact = pixel_metrics(maps, masks, limit=limit)
    if exact["pixel_aupro"] is None:
        return exact
    ours, at_5 = released_aupro(maps, masks, limit, AUPRO_5_LIMIT)
    return exact | {"pixel_aupro": ours, "pixel_aupro_5": at_5}


def released_aupro(maps: Maps, masks: Masks, *limits: float) -> list[float | None]:
    """AUPRO with 200 thresholds, evenly spaced between the smallest and largest map value.

    A pixel strictly above a threshold is detected. Points with a false-positive rate of at least
    the limit are dropped, the other rates are divided by their maximum, and the area is computed
    by the trapezoidal rule between the first and the last point, without extrapolation.

    Args:
        maps: Float32, without NaN; each is read twice.
        limits: False-positive rates below which points count, in (0, 1].

    Returns:
        A value within 0…1 for each limit; ``None`` if the released code divides by zero or has
        no curve: no defect, constant maps, fewer than two points below the limit, or no false
        positive.
    """
    thresholds = _thresholds(maps)
    curve = None if thresholds is None else _curve(maps, masks, thresholds)
    return [None if curve is None else _area(*curve, limit) for limit in limits]


def _area(false: np.ndarray, overlap: np.ndarray, limit: float) -> float | None:
    below = false < limit
    false, overlap = false[below], overlap[below]
    if len(false) < MIN_POINTS or not false.max() > 0:
        return None
    # Both decrease with the threshold.
    return float(np.trapezoid(overlap[::-1], (false / false.max())[::-1]))


def _thresholds(maps: Maps) -> np.ndarray | None:
    low = min(maps[i].min() for i in range(len(maps)))
    high = max(maps[i].max() for i in range(len(maps)))
    step = (high - low) / THRESHOLDS
    return np.arange(low, high, step) if step > 0 else None


def _curve(
    maps: Maps, masks: Masks, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    size = len(thresholds) + 1
    free, defective, regions = np.zeros(size, np.int64), np.zeros(size), 0
    for i in range(len(maps)):
        anomaly_map, mask = maps[i], masks[i]
        # Number of thresholds strictly below each pixel, at which it is detected.
        passed = np.searchsorted(thresholds, np.asarray(anomaly_map).ravel(), side="left")
        counted = ~np.ma.getmaskarray(anomaly_map).ravel()
        if mask is not None:
            indices, shares, count = defective_pixels(mask)
            defective += np.bincount(passed[indices], weights=shares, minlength=size)
            regions += count
            counted[indices] = False
        free += np.bincount(passed[counted], minlength=size)
    if not regions or not free.any():
        return None
    return _above(free) / free.sum(), _above(defective) / regions


def _above(counts: np.ndarray) -> np.ndarray:
    """Number of pixels above each threshold, from the number above exactly k of them."""
    return counts[::-1].cumsum()[::-1][1:]
