"""The curves behind the metrics, of few enough points to draw."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

from decodiff_pipeline.metrics.exact import AUPRO_LIMIT
from decodiff_pipeline.metrics.threshold_counts import count_images, count_pixels

if TYPE_CHECKING:
    from decodiff_pipeline.metrics.threshold_counts import Maps, Masks, ThresholdCounts

POINTS = 200
DIGITS = 5
STRAIGHT = 1e-9  # area that a point adds to a straight line

Curve = dict[str, list[float]]


def curves(
    maps: Maps,
    masks: Masks,
    scores: np.ndarray,
    defective: np.ndarray,
    limit: float = AUPRO_LIMIT,
) -> dict[str, Curve]:
    """Exact curves of one category, thinned; the areas stay within 0.002 (tested, not proven).

    Args:
        maps: See `metrics.pixel_metrics`.
        masks: See `metrics.pixel_metrics`.
        scores: Float (N,), of the images.
        defective: bool (N,).
        limit: False-positive rate at which ``pro`` ends.

    Returns:
        Ready for JSON, of at most 200 points each: ``image_roc`` and ``pixel_roc`` ``{fpr, tpr}``,
        ``image_pr`` and ``pixel_pr`` ``{recall, precision}``, ``pro`` ``{fpr, overlap}``. A curve
        that cannot be measured is absent.

    Raises:
        ValueError: See `metrics.pixel_metrics`.
        ModelError: A score or a map holds NaN.
    """
    drawn = {}
    of_images, of_pixels = count_images(scores, defective), count_pixels(maps, masks)
    for kind, counts in (("image", of_images), ("pixel", of_pixels)):
        if counts is not None:
            drawn[f"{kind}_roc"] = _thinned(fpr=_rates(counts), tpr=_risen(counts.defective))
            recall, precision = _precision(counts)
            drawn[f"{kind}_pr"] = _thinned(recall=recall, precision=precision)
    if of_pixels is not None:
        rate, overlap = _cut(_rates(of_pixels), _risen(of_pixels.overlap), limit)
        drawn["pro"] = _thinned(fpr=rate, overlap=overlap)
    return drawn


def _rates(counts: ThresholdCounts) -> np.ndarray:
    """False-positive rate before and after each level, the highest first, from 0 to 1."""
    steps = np.stack([counts.before, counts.after], axis=1)[::-1].ravel()
    return np.r_[0, steps, 1]


def _risen(found: np.ndarray) -> np.ndarray:
    """Share of what is found before and after each level, the highest first, from 0 to 1."""
    total = np.r_[0, found[::-1].cumsum()] / found.sum()
    return np.r_[0, np.repeat(total, 2)[1:-1], 1]


def _precision(counts: ThresholdCounts) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision at each level, the highest first; flat before the first one."""
    true = counts.defective[::-1].cumsum()
    precision = true / (true + (counts.above + counts.at)[::-1])
    return np.r_[0, true / true[-1]], np.r_[precision[0], precision]


def _cut(x: np.ndarray, y: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """The curve up to a limit of x."""
    inside = int(np.searchsorted(x, limit, side="right"))
    if inside == len(x):
        return x, y
    x0, x1, y0, y1 = x[inside - 1], x[inside], y[inside - 1], y[inside]
    end = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
    return np.r_[x[:inside], limit], np.r_[y[:inside], end]


def _thinned(**axes: np.ndarray) -> Curve:
    """At most `POINTS` points, each in turn the one that adds most area to the line so far."""
    x, y = axes.values()
    kept = [0, len(x) - 1]
    heap = [_farthest(x, y, 0, len(x) - 1)]
    while len(kept) < POINTS and heap[0][0] < -STRAIGHT:
        _, point, start, end = heapq.heappop(heap)
        kept.append(point)
        heapq.heappush(heap, _farthest(x, y, start, point))
        heapq.heappush(heap, _farthest(x, y, point, end))
    kept.sort()
    return {name: axis[kept].round(DIGITS).tolist() for name, axis in axes.items()}


def _farthest(x: np.ndarray, y: np.ndarray, start: int, end: int) -> tuple[float, int, int, int]:
    """The point farthest off the line from start to end, after minus the area it would add."""
    if end == start + 1:
        return 0.0, start, start, end
    inner = slice(start + 1, end)
    off = np.abs(
        (x[inner] - x[start]) * (y[end] - y[start]) - (y[inner] - y[start]) * (x[end] - x[start])
    )
    point = int(off.argmax())
    return -float(off[point]) / 2, start + 1 + point, start, end
