"""The protocol of the released DeCo-Diff code, for comparison with published tables alone.

It flatters and it can fail (see docs/evaluation.md); `metrics` and `masks` hold what to trust.

Source: the released code of Beizaee et al., "Correcting Deviations from Normality", CVPR 2025.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from decodiff_pipeline.metrics.exact import AUPRO_5_LIMIT, AUPRO_LIMIT, pixel_metrics
from decodiff_pipeline.metrics.threshold_counts import EIGHT_CONNECTED

if TYPE_CHECKING:
    from decodiff_pipeline.metrics.exact import Metrics
    from decodiff_pipeline.metrics.threshold_counts import Maps, Masks

THRESHOLDS = 200
MIN_POINTS = 2  # of a curve that has an area


def released_pixel_metrics(maps: Maps, masks: Masks, *, limit: float = AUPRO_LIMIT) -> Metrics:
    """As `metrics.pixel_metrics`, but for both AUPRO, which are `released_aupro`."""
    exact = pixel_metrics(maps, masks, limit=limit)
    if exact["pixel_aupro"] is None:
        return exact
    ours, at_5 = released_aupro(maps, masks, limit, AUPRO_5_LIMIT)
    return exact | {"pixel_aupro": ours, "pixel_aupro_5": at_5}


def released_aupro(maps: Maps, masks: Masks, *limits: float) -> list[float | None]:
    """AUPRO by 200 thresholds, linear between the least and the largest value of all maps.

    At each threshold a pixel strictly above it is detected. Points at a false-positive rate of
    a limit or more are dropped; the others' rates are divided by the largest of them, and the
    area is taken by trapezoids between the first point and the last, nothing added at either end.

    Args:
        maps: Float32 (N, H, W), or a sequence of (H, W), without NaN; each is read twice.
        masks: For each map bool (H, W), or ``None`` for an image without defects.
        limits: False-positive rates below which points count, in (0, 1].

    Returns:
        One for each limit, within 0…1; ``None`` where the released code divides by zero or has
        no curve: no defect, maps of one value, fewer than two points below the limit, or no false
        positive at all.
    """
    thresholds = _thresholds(maps)
    curve = None if thresholds is None else _curve(maps, masks, thresholds)
    return [None if curve is None else _area(*curve, limit) for limit in limits]


def _area(false: np.ndarray, overlap: np.ndarray, limit: float) -> float | None:
    kept = false < limit
    false, overlap = false[kept], overlap[kept]
    if len(false) < MIN_POINTS or not false.max() > 0:
        return None
    # Both fall as the threshold rises.
    return float(np.trapezoid(overlap[::-1], (false / false.max())[::-1]))


def _thresholds(maps: Maps) -> np.ndarray | None:
    low = min(maps[i].min() for i in range(len(maps)))
    high = max(maps[i].max() for i in range(len(maps)))
    step = (high - low) / THRESHOLDS
    return np.arange(low, high, step) if step > 0 else None


def _curve(
    maps: Maps, masks: Masks, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """False-positive rate and mean overlap of regions at each threshold."""
    size = len(thresholds) + 1
    free, found, regions = np.zeros(size, np.int64), np.zeros(size), 0
    for i in range(len(maps)):
        # How many thresholds lie strictly below the pixel: it is detected at the first so many.
        anomaly_map, mask = maps[i], masks[i]
        passed = np.searchsorted(thresholds, np.asarray(anomaly_map).ravel(), side="left")
        judged = ~np.ma.getmaskarray(anomaly_map).ravel()
        if mask is None:
            free += np.bincount(passed[judged], minlength=size)
            continue
        labels, count = ndimage.label(mask, structure=EIGHT_CONNECTED)
        region = labels.ravel()
        share = 1 / np.maximum(np.bincount(region, minlength=count + 1), 1)
        free += np.bincount(passed[(region == 0) & judged], minlength=size)
        inside = region > 0
        found += np.bincount(passed[inside], weights=share[region[inside]], minlength=size)
        regions += count
    if not regions or not free.any():
        return None
    return _above(free) / free.sum(), _above(found) / regions


def _above(counts: np.ndarray) -> np.ndarray:
    """How many pixels pass each threshold, from how many pass exactly k of them."""
    return counts[::-1].cumsum()[::-1][1:]
