"""Exact image and pixel metrics: every distinct score is a threshold.

A pixel or image is detected if its score is at least the threshold. `ranking` and `overlap_area`
take counts at U levels, each a distinct score or a bin of scores, ascending along the last axis;
other axes, such as one of resamples, come first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from decodiff_pipeline.metrics.threshold_counts import count_images, count_pixels

if TYPE_CHECKING:
    from collections.abc import Callable

    from decodiff_pipeline.metrics.threshold_counts import Maps, Masks, ThresholdCounts

IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1max")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro", "pixel_aupro_5")
AUPRO_LIMIT = 0.3
AUPRO_5_LIMIT = 0.05  # false-positive rate at which pixel_aupro_5 ends
TINY = np.finfo(np.float64).tiny

Metrics = dict[str, float | None]
Item = TypeVar("Item")


@dataclass(frozen=True)
class OnDemand(Generic[Item]):
    """A sequence whose items are computed at each access, and not cached."""

    count: int
    make: Callable[[int], Item]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Item:
        return self.make(index)


def image_metrics(scores: np.ndarray, defective: np.ndarray) -> Metrics:
    """AUROC, average precision and the best F1 over images.

    Args:
        scores: Float (N,), higher is more anomalous.
        defective: bool (N,).

    Returns:
        ``image_auroc``, ``image_ap``, ``image_f1max`` within 0…1; ``None`` without good or
        without defective images.

    Raises:
        ModelError: A score is NaN.
    """
    counts = count_images(scores, defective)
    if counts is None:
        return dict.fromkeys(IMAGE_METRICS)
    return dict(zip(IMAGE_METRICS, map(float, _ranked(counts)), strict=True))


def pixel_metrics(
    maps: Maps,
    masks: Masks,
    *,
    limit: float = AUPRO_LIMIT,
    workers: int | None = None,
) -> Metrics:
    """AUROC, average precision, the best F1 and two AUPRO over all pixels of one category.

    AUPRO is the area under the curve of the per-region overlap (the detected share of each
    8-connected region, mean over regions) against the false-positive rate of all defect-free
    pixels, up to ``limit`` (linear interpolation), divided by ``limit``.

    Source: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, section 4.

    Args:
        maps: Float32 anomaly maps, (N, H, W) or any sequence of (H, W), which may differ in size.
            Each is read once, with a mask twice; a memory map or a lazy sequence is never loaded
            as a whole.
        masks: For each map bool (H, W), True on defects, or ``None`` for an image without any.
        limit: False-positive rate up to which ``pixel_aupro`` integrates, in (0, 1].
        workers: Number of threads; by default one per core, at most 4.

    Returns:
        ``pixel_auroc``, ``pixel_ap``, ``pixel_f1max``, ``pixel_aupro`` and, up to 0.05,
        ``pixel_aupro_5``, within 0…1; ``None`` without defective or without defect-free pixels.

    Raises:
        ValueError: There are not as many masks as maps, their shapes differ, or the limit is
            out of range.
        ModelError: A map holds a NaN.
    """
    if not 0 < limit <= 1:
        raise ValueError(f"limit is {limit}; it must be above 0 and at most 1")
    counts = count_pixels(maps, masks, workers)
    if counts is None:
        return dict.fromkeys(PIXEL_METRICS)
    curve = counts.overlap, counts.before, counts.after
    figures = *_ranked(counts), overlap_area(*curve, limit), overlap_area(*curve, AUPRO_5_LIMIT)
    return dict(zip(PIXEL_METRICS, map(float, figures), strict=True))


def _ranked(counts: ThresholdCounts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return ranking(counts.defective, counts.above, counts.at, np.array([counts.total]))


def ranking(
    defective: np.ndarray,
    above: np.ndarray,
    at: np.ndarray,
    total: np.ndarray,
    *,
    mixed: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AUROC, average precision and the best F1.

    Args:
        defective: Number of defective items at each level, (…, U); their sum is positive.
        above: Number of defect-free items above each level, (…, U).
        at: Number of defect-free items at each level, (…, U).
        total: Number of defect-free items, (…, 1); positive.
        mixed: Whether levels are bins, in which defective and defect-free items are evenly mixed:
            the precision of a bin's defective items is that in its middle. Otherwise the items of
            a level have equal scores and are detected at once.

    Returns:
        Three arrays (…,) within 0…1.
    """
    positives = defective.sum(-1, keepdims=True)
    true = positives - defective.cumsum(-1) + defective  # true positives at each level
    false = above + at  # false positives
    # Correctly ordered pairs of a defective and a defect-free item; ties count half.
    ordered = (defective * (total - above - at / 2)).sum(-1, keepdims=True)
    hits, alarms = (true - (defective - 1) / 2, above + at / 2) if mixed else (true, false)
    precision = hits / np.maximum(hits + alarms, TINY)
    return (
        (ordered / positives / total)[..., 0],
        (defective * precision).sum(-1) / positives[..., 0],
        (2 * true / (positives + true + false)).max(-1),
    )


def overlap_area(
    overlap: np.ndarray, before: np.ndarray, after: np.ndarray, limit: float
) -> np.ndarray:
    """AUPRO: area under the region overlap up to a false-positive rate, divided by that rate.

    Each level adds a linear ramp from the false-positive rate ``before`` it to the one ``after``
    it. The curve is the sum of the ramps, so its area is the sum of their areas.

    Args:
        overlap: Share of a region at the level, mean over regions, (…, U).
        before: False-positive rate with all higher levels detected, (…, U).
        after: False-positive rate with this level detected as well, (…, U).
        limit: Largest false-positive rate, in (0, 1].

    Returns:
        (…,), within 0…1.
    """
    end = np.minimum(after, limit)
    start = np.minimum(before, limit)
    width = after - before
    height = np.divide(end - start, width, out=np.ones_like(width), where=width > 0)
    area = (end - start) * height / 2 + (limit - end)
    return (overlap * area).sum(-1) / limit
