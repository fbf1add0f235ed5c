"""Image and pixel metrics, computed exactly: every distinct score is a threshold.

A pixel or image counts as detected where its score is at least the threshold. Of the four pixel
metrics none changes at a threshold that no defective pixel has: TP stays, FP grows, and the region
overlap stays. So all four follow from three numbers for each distinct score u of a defective
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
from scipy import ndimage

from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.evaluation.counting import Levels

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1max")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro")
EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)
AUPRO_LIMIT = 0.3
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
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    precision, recall, _ = precision_recall_curve(defective, scores)
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)
    return {
        "image_auroc": float(roc_auc_score(defective, scores)),
        "image_ap": float(average_precision_score(defective, scores)),
        "image_f1max": float(f1.max()),
    }


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
        found = np.flatnonzero(mask)
        if not len(found):
            continue
        labels, count = ndimage.label(mask, structure=EIGHT_CONNECTED)
        region = labels.ravel()[found]
        weights.append((1.0 / np.bincount(region, minlength=count + 1)[1:])[region - 1])
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
    levels = Levels(scores)

    def count(images: range) -> tuple[np.ndarray, np.ndarray]:
        chunk = np.concatenate([_negatives(maps[i], defects.get(i)) for i in images])
        if np.isnan(chunk).any():
            raise ModelError(NOT_A_NUMBER)
        return levels.count(chunk)

    histogram, at = np.zeros(len(scores) + 1, np.int64), np.zeros(len(scores), np.int64)
    threads = workers or min(MAX_WORKERS, os.cpu_count() or 1)
    chunks = list(_chunks(maps))
    with ThreadPoolExecutor(threads) as pool:  # numpy lets go of the interpreter lock
        for start in range(0, len(chunks), threads):  # so that results do not pile up
            for more, more_at in pool.map(count, chunks[start : start + threads]):
                histogram += more
                at += more_at
    at_or_above = histogram[:0:-1].cumsum()[::-1]
    return _Negatives(at_or_above - at, at, int(histogram.sum()))


def _chunks(maps: Maps) -> Iterator[range]:
    size = max(1, CHUNK_PIXELS // max(1, maps[0].size))
    for start in range(0, len(maps), size):
        yield range(start, min(start + size, len(maps)))


def _negatives(anomaly_map: np.ndarray, defects: np.ndarray | None) -> np.ndarray:
    flat = np.asarray(anomaly_map, dtype=np.float32).ravel()
    if defects is None:
        return flat
    keep = np.ones(len(flat), dtype=bool)
    keep[defects] = False
    return flat[keep]


def _from_counts(levels: _Levels, found: _Negatives, limit: float) -> Metrics:
    positives = levels.counts.sum()
    true = levels.counts[::-1].cumsum()[::-1]  # detected with the level as threshold
    false = found.above + found.at
    precision = true / (true + false)
    # Of all pairs of a defective and a defect-free pixel, those in the right order; ties half.
    ordered = levels.counts * (found.total - found.above - found.at / 2)
    return {
        "pixel_auroc": float(ordered.sum() / positives / found.total),
        "pixel_ap": float((levels.counts * precision).sum() / positives),
        "pixel_f1max": float((2 * true / (positives + true + false)).max()),
        "pixel_aupro": _aupro(
            levels.weights, found.above / found.total, false / found.total, limit
        ),
    }


def _aupro(weights: np.ndarray, before: np.ndarray, after: np.ndarray, limit: float) -> float:
    """Area under the overlap curve, summed level by level instead of along the curve.

    A level lifts the overlap by its weight, on a straight line from the false-positive rate
    ``before`` it to that ``after`` it. The curve is the sum of these ramps, so its area up to the
    limit is the sum of theirs.
    """
    end = np.minimum(after, limit)
    start = np.minimum(before, limit)
    width = after - before
    height = np.divide(end - start, width, out=np.ones_like(width), where=width > 0)
    area = (end - start) * height / 2 + (limit - end)
    return float((weights * area).sum() / limit)
