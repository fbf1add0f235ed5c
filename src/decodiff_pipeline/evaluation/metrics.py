"""Image and pixel metrics, computed exactly: every distinct score is a threshold.

A pixel or image counts as detected where its score is at least the threshold. Of the pixel
metrics none changes at a threshold that no defective pixel has: TP stays, FP grows, and the region
overlap stays. So all follow from three numbers for each distinct score u of a defective pixel: how
many defective pixels have it, what share of the regions they are, and how many defect-free pixels
lie above and at u. The defect-free pixels, nearly all there are, need no common order for that:
all pixels are sorted and counted in chunks, on all cores, and the defective ones subtracted.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.evaluation.bins import NOT_A_NUMBER
from decodiff_pipeline.evaluation.ranking import overlap_area, ranking
from decodiff_pipeline.evaluation.regions import defective_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1max")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro", "pixel_aupro_5")
AUPRO_LIMIT = 0.3
AUPRO_5_LIMIT = 0.05  # of pixel_aupro_5
CHUNK_PIXELS = 1 << 21  # per worker at once; more where there are many levels to look up
MAX_CHUNK_PIXELS = 1 << 23  # 64 MB with the sorted copy
PIXELS_PER_LEVEL = 4
MAX_WORKERS = 4

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
    """
    defective = np.asarray(defective, dtype=bool)
    if not defective.any() or defective.all():
        return dict.fromkeys(IMAGE_METRICS)
    levels, place = np.unique(scores, return_inverse=True)
    found = np.bincount(place[defective], minlength=len(levels))
    free = np.bincount(place[~defective], minlength=len(levels))
    above = free.sum() - free.cumsum()
    figures = ranking(found, above, free, free.sum(keepdims=True))
    return dict(zip(IMAGE_METRICS, map(float, figures), strict=True))


def pixel_metrics(
    maps: Maps,
    masks: Masks,
    *,
    limit: float = AUPRO_LIMIT,
    workers: int | None = None,
) -> Metrics:
    """AUROC, average precision, the best F1 and AUPRO over all pixels of one category.

    AUPRO is the area under the per-region overlap (mean over 8-connected regions of the share of
    the region detected) against the false-positive rate of all defect-free pixels, up to
    ``limit`` (linear interpolation there), divided by ``limit``.

    Source: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, section 4.

    Args:
        maps: Float32 anomaly maps, (N, H, W) or any sequence of (H, W); each is read twice, and
            a memory map or a lazy sequence is never in memory as a whole.
        masks: For each map bool (H, W), True on defects, or ``None`` for an image without any.
        limit: False-positive rate up to which AUPRO integrates, in (0, 1].
        workers: Threads; by default one a core.

    Returns:
        ``pixel_auroc``, ``pixel_ap``, ``pixel_f1max``, ``pixel_aupro`` within 0…1; ``None``
        where there are not both defective and defect-free pixels.

    Raises:
        ValueError: There are not as many masks as maps, their shapes differ, or the limit is
            out of range.
        ModelError: A map holds a NaN.
    """
    if not 0 < limit <= 1:
        raise ValueError(f"limit is {limit}; it must be above 0 and at most 1")
    if len(maps) != len(masks):
        raise ValueError(f"{len(maps)} maps but {len(masks)} masks; give one for each")
    defects = _collect(maps, masks)
    if not len(defects.scores):
        return dict.fromkeys(PIXEL_METRICS)
    levels = _levels(defects)
    negatives = _count_negatives(maps, levels, workers)
    if not negatives.total:
        return dict.fromkeys(PIXEL_METRICS)
    return _from_counts(levels, negatives, limit)


@dataclass
class _Defects:
    """The defective pixels: each (P,)."""

    scores: np.ndarray
    weights: np.ndarray  # 1 / (regions · pixels of the pixel's region), so that they sum to 1


@dataclass
class _Levels:
    """The distinct scores of defective pixels, ascending: each (U,)."""

    scores: np.ndarray
    counts: np.ndarray
    weights: np.ndarray


@dataclass
class _Negatives:
    """Defect-free pixels: int64 (U,) above and at each level, and all of them."""

    above: np.ndarray
    at: np.ndarray
    total: int


def _collect(maps: Maps, masks: Masks) -> _Defects:
    scores, weights, regions = [], [], 0
    for i in range(len(masks)):
        mask = masks[i]
        if mask is None:
            continue
        anomaly_map = np.asarray(maps[i], dtype=np.float32)
        if mask.shape != anomaly_map.shape:
            raise ValueError(f"mask {i} is {mask.shape}, but its map is {anomaly_map.shape}")
        found, share, count = defective_pixels(mask)
        if not count:
            continue
        weights.append(share)
        scores.append(anomaly_map.ravel()[found])
        regions += count
    if not scores:
        return _Defects(np.empty(0, np.float32), np.empty(0))
    return _Defects(np.concatenate(scores), np.concatenate(weights) / regions)


def _levels(defects: _Defects) -> _Levels:
    order = np.argsort(defects.scores)
    ordered = defects.scores[order]
    if np.isnan(ordered[-1]):
        raise ModelError(NOT_A_NUMBER)
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    return _Levels(
        scores=ordered[starts],
        counts=np.diff(np.r_[starts, len(ordered)]),
        weights=np.add.reduceat(defects.weights[order], starts),
    )


def _count_negatives(maps: Maps, levels: _Levels, workers: int | None) -> _Negatives:
    images = iter(range(len(maps)))
    size = min(max(CHUNK_PIXELS, PIXELS_PER_LEVEL * len(levels.scores)), MAX_CHUNK_PIXELS)

    def count(_: int) -> tuple[np.ndarray, np.ndarray, int]:
        below, at = np.zeros((2, len(levels.scores)), np.int64)
        total = 0
        while chunk := _chunk(maps, images, size):
            pixels = np.concatenate(chunk)
            del chunk
            _add(pixels, levels.scores, below, at)
            total += len(pixels)
        return below, at, total

    threads = workers or min(MAX_WORKERS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:  # numpy lets go of the interpreter lock
        counts = list(pool.map(count, range(threads)))
    below, at = sum(one[0] for one in counts), sum(one[1] for one in counts)
    total = sum(one[2] for one in counts)
    # Up to here defective pixels were counted too.
    defective_below = levels.counts.cumsum() - levels.counts
    return _Negatives(
        above=(total - below - at) - (levels.counts.sum() - defective_below - levels.counts),
        at=at - levels.counts,
        total=total - int(levels.counts.sum()),
    )


def _chunk(maps: Maps, images: Iterator[int], size: int) -> list[np.ndarray]:
    """Pixels of the next maps, ``size`` together or a little more."""
    chunk: list[np.ndarray] = []
    pixels = 0
    while pixels < size and (i := next(images, None)) is not None:
        chunk.append(np.asarray(maps[i], dtype=np.float32).ravel())
        pixels += len(chunk[-1])
    return chunk


def _add(pixels: np.ndarray, levels: np.ndarray, below: np.ndarray, at: np.ndarray) -> None:
    """Add how many pixels lie below and at each level; sorts the pixels."""
    pixels.sort()
    if not len(pixels):
        return
    if np.isnan(pixels[-1]):
        raise ModelError(NOT_A_NUMBER)
    place = np.searchsorted(pixels, levels)
    below += place
    hit = np.flatnonzero(pixels[np.minimum(place, len(pixels) - 1)] == levels)
    at[hit] += np.searchsorted(pixels, levels[hit], side="right") - place[hit]


def _from_counts(levels: _Levels, free: _Negatives, limit: float) -> Metrics:
    before, after = free.above / free.total, (free.above + free.at) / free.total
    figures = (
        *ranking(levels.counts, free.above, free.at, np.array([free.total])),
        overlap_area(levels.weights, before, after, limit),
        overlap_area(levels.weights, before, after, AUPRO_5_LIMIT),
    )
    return dict(zip(PIXEL_METRICS, map(float, figures), strict=True))
