"""Image and pixel metrics, computed exactly: every distinct score is a threshold.

A pixel or image counts as detected where its score is at least the threshold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from decodiff_pipeline.metrics.ranking import overlap_area, ranking
from decodiff_pipeline.metrics.threshold_counts import count_images, count_pixels

if TYPE_CHECKING:
    from decodiff_pipeline.metrics.threshold_counts import ThresholdCounts

IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1max")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro", "pixel_aupro_5")
AUPRO_LIMIT = 0.3
AUPRO_5_LIMIT = 0.05  # of pixel_aupro_5

Metrics = dict[str, float | None]


class Maps(Protocol):
    """An array (N, H, W), or anything that gives (H, W) by number."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, index: int, /) -> np.ndarray:
        """Map number `index`."""


class Masks(Protocol):
    """As `Maps`, with ``None`` for an image without defects."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, index: int, /) -> np.ndarray | None:
        """Mask number `index`."""


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
