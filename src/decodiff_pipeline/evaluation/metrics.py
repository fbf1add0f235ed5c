"""Image and pixel metrics, computed exactly: every distinct score is a threshold.

A pixel or image counts as detected where its score is at least the threshold. Of the pixel
metrics none changes at a threshold that no defective pixel has: TP stays, FP grows, and the region
overlap stays. So all follow from three numbers for each distinct score u of a defective
pixel: how many defective pixels have it, what share of the regions they are, and how many
defect-free pixels lie above and at u. The defect-free pixels, nearly all there are, need no
common order for that: they are sorted and counted in chunks, on all cores.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.evaluation.counting import Levels
from decodiff_pipeline.evaluation.ranking import overlap_area, ranking
from decodiff_pipeline.evaluation.regions import defective_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1max")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro", "pixel_aupro_5")
AUPRO_LIMIT = 0.3
AUPRO_5_LIMIT = 0.05  # of pixel_aupro_5
CHUNK_PIXELS = 1 << 21  # per worker at once, some 50 MB with all that is made of them
MAX_WORKERS = 4
NOT_A_NUMBER = "an anomaly map holds NaN, so metrics mean nothing; train again, then evaluate"

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
    negatives = _count_negatives(maps, defects.pixels, levels.scores, workers)
    if not negatives.total:
        return dict.fromkeys(PIXEL_METRICS)
    return _from_counts(levels, negatives, limit)


@dataclass
class _Defects:
    """The defective pixels: scores and weights (P,), and where they are, per image."""

    scores: np.ndarray
    weights: np.ndarray  # 1 / (regions · pixels of the pixel's region), so that they sum to 1
    pixels: dict[int, np.ndarray]  # image → flat indices


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
    scores, weights, pixels, regions = [], [], {}, 0
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
        pixels[i] = found.astype(np.int32)
        regions += count
    if not scores:
        return _Defects(np.empty(0, np.float32), np.empty(0), {})
    return _Defects(np.concatenate(scores), np.concatenate(weights) / regions, pixels)


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


def _count_negatives(
    maps: Maps, defects: dict[int, np.ndarray], scores: np.ndarray, workers: int | None
) -> _Negatives:
    levels, images = Levels(scores), iter(range(len(maps)))

    def count(_: int) -> tuple[np.ndarray, np.ndarray]:
        histogram, at = np.zeros(len(scores) + 1, np.int64), np.zeros(len(scores), np.int64)
        while chunk := _chunk(maps, defects, images):
            values = np.concatenate(chunk)
            if np.isnan(values).any():
                raise ModelError(NOT_A_NUMBER)
            more, more_at = levels.count(values)
            histogram += more
            at += more_at
        return histogram, at

    threads = workers or min(MAX_WORKERS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:  # numpy lets go of the interpreter lock
        histograms, ats = zip(*pool.map(count, range(threads)), strict=True)
    histogram, at = np.sum(histograms, axis=0), np.sum(ats, axis=0)
    at_or_above = histogram[:0:-1].cumsum()[::-1]
    return _Negatives(at_or_above - at, at, int(histogram.sum()))


def _chunk(maps: Maps, defects: dict[int, np.ndarray], images: Iterator[int]) -> list[np.ndarray]:
    """Defect-free pixels of the next maps, `CHUNK_PIXELS` together or a little more."""
    chunk: list[np.ndarray] = []
    pixels = 0
    while pixels < CHUNK_PIXELS and (i := next(images, None)) is not None:
        chunk.append(_negatives(maps[i], defects.get(i)))
        pixels += len(chunk[-1])
    return chunk


def _negatives(anomaly_map: np.ndarray, defects: np.ndarray | None) -> np.ndarray:
    flat = np.asarray(anomaly_map, dtype=np.float32).ravel()
    if defects is None:
        return flat
    keep = np.ones(len(flat), dtype=bool)
    keep[defects] = False
    return flat[keep]


def _from_counts(levels: _Levels, free: _Negatives, limit: float) -> Metrics:
    before, after = free.above / free.total, (free.above + free.at) / free.total
    figures = (
        *ranking(levels.counts, free.above, free.at, np.array([free.total])),
        overlap_area(levels.weights, before, after, limit),
        overlap_area(levels.weights, before, after, AUPRO_5_LIMIT),
    )
    return dict(zip(PIXEL_METRICS, map(float, figures), strict=True))
