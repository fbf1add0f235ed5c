"""Image and pixel metrics, computed exactly: every distinct score is a threshold.

A pixel or image counts as detected where its score is at least the threshold. `ranking` and
`overlap_area` take counts at levels, each a distinct score or a bin of scores: ascending along the
last axis, after any number of axes, one of resamples for instance.
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
AUPRO_5_LIMIT = 0.05  # of pixel_aupro_5
TINY = np.finfo(np.float64).tiny

Metrics = dict[str, float | None]
Item = TypeVar("Item")


@dataclass(frozen=True)
class OnDemand(Generic[Item]):
    """A sequence whose items are made when they are asked for, and never kept."""

    count: int
    make: Callable[[int], Item]

    def __len__(self) -> int:
        """How many items there are."""
        return self.count

    def __getitem__(self, index: int, /) -> Item:
        """Item number `index`."""
        return self.make(index)


def image_metrics(scores: np.ndarray, defective: np.ndarray) -> Metrics:
    """AUROC, average precision and the best F1 over images.

    Args:
        scores: Float (N,), higher is more anomalous.
        defective: bool (N,).

    Returns:
        ``image_auroc``, ``image_ap``, ``image_f1max`` within 0…1; ``None`` where there are not
        both good and defective images.

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

    AUPRO is the area under the per-region overlap (mean over 8-connected regions of the share of
    the region detected) against the false-positive rate of all defect-free pixels, up to
    ``limit`` (linear interpolation there), divided by ``limit``.

    Source: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, section 4.

    Args:
        maps: Float32 anomaly maps, (N, H, W) or any sequence of (H, W), which may differ in size.
            Each is read once, one with a mask twice; a memory map or a lazy sequence is never in
            memory as a whole.
        masks: For each map bool (H, W), True on defects, or ``None`` for an image without any.
        limit: False-positive rate up to which ``pixel_aupro`` integrates, in (0, 1].
        workers: Threads; by default one a core.

    Returns:
        ``pixel_auroc``, ``pixel_ap``, ``pixel_f1max``, ``pixel_aupro`` and, up to 0.05,
        ``pixel_aupro_5``, within 0…1; ``None`` where there are not both defective and defect-free
        pixels.

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
        defective: (…, U), how many defective ones have each level; above 0 in sum.
        above: (…, U), how many defect-free ones lie above each level.
        at: (…, U), how many defect-free ones have each level.
        total: (…, 1), all defect-free ones; above 0.
        mixed: Levels are bins, in which the two kinds lie evenly mixed: the precision of a bin's
            defective ones is that in its middle. Otherwise they are equal scores, all detected
            at once.

    Returns:
        Three arrays (…,) within 0…1.
    """
    positives = defective.sum(-1, keepdims=True)
    true = positives - defective.cumsum(-1) + defective  # detected with the level as threshold
    false = above + at
    # Of all pairs of a defective and a defect-free one, those in the right order; ties half.
    ordered = (defective * (total - above - at / 2)).sum(-1, keepdims=True)
    reached, alarms = (true - (defective - 1) / 2, above + at / 2) if mixed else (true, false)
    precision = reached / np.maximum(reached + alarms, TINY)
    return (
        (ordered / positives / total)[..., 0],
        (defective * precision).sum(-1) / positives[..., 0],
        (2 * true / (positives + true + false)).max(-1),
    )


def overlap_area(
    overlap: np.ndarray, before: np.ndarray, after: np.ndarray, limit: float
) -> np.ndarray:
    """AUPRO: area under the region overlap up to a false-positive rate, divided by that.

    A level lifts the overlap by its share, on a straight line from the false-positive rate
    ``before`` it to that ``after`` it. The curve is the sum of these ramps, so its area up to the
    limit is the sum of theirs.

    Args:
        overlap: (…, U), mean over regions of the share of the region that has the level.
        before: (…, U), false-positive rate with all levels above this one detected.
        after: (…, U), the same with this one too.
        limit: In (0, 1].

    Returns:
        (…,), within 0…1.
    """
    end = np.minimum(after, limit)
    start = np.minimum(before, limit)
    width = after - before
    height = np.divide(end - start, width, out=np.ones_like(width), where=width > 0)
    area = (end - start) * height / 2 + (limit - end)
    return (overlap * area).sum(-1) / limit
