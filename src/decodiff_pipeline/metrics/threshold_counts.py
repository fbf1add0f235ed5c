"""Counts of images or pixels at each threshold, from which exact metrics are computed.

Only the distinct scores of defective pixels are needed as thresholds: between two of them, the
true positives and the region overlap are constant. For each such score u this module counts the
defective pixels, their share of the defect regions, and the defect-free pixels above and at u.
The defect-free pixels, which are the vast majority, are never sorted as a whole: all pixels are
sorted and counted in chunks, in threads, and the defective ones are subtracted.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy import ndimage

from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)
CHUNK_PIXELS = 1 << 21  # per worker; more if there are many levels
MAX_CHUNK_PIXELS = 1 << 24  # 64 MB
PIXELS_PER_LEVEL = 8
BLOCK_LEVELS = 1 << 12
MAX_WORKERS = 4
NOT_A_NUMBER = (
    "a score or an anomaly map holds NaN, so metrics mean nothing; train again, then evaluate"
)


class Maps(Protocol):
    """An array (N, H, W), or a sequence of arrays (H, W).

    Masked pixels of masked arrays are ignored; they must not be defective.
    """

    def __len__(self) -> int:
        """Number of maps."""

    def __getitem__(self, index: int, /) -> np.ndarray:
        """A map, (H, W)."""


class Masks(Protocol):
    """As `Maps`, with ``None`` for an image without defects."""

    def __len__(self) -> int:
        """Number of masks."""

    def __getitem__(self, index: int, /) -> np.ndarray | None:
        """A mask, bool (H, W)."""


@dataclass(frozen=True)
class ThresholdCounts:
    """Counts at the U distinct scores of defective images or pixels, ascending; each (U,).

    Attributes:
        defective: Defective images or pixels with the score.
        above: Defect-free images or pixels with a higher score.
        at: Defect-free images or pixels with the score.
        total: Number of defect-free images or pixels; positive.
        overlap: Share of a region with the score, mean over regions; empty for images.
    """

    defective: np.ndarray
    above: np.ndarray
    at: np.ndarray
    total: int
    overlap: np.ndarray

    @property
    def before(self) -> np.ndarray:
        """False-positive rate with all higher scores detected."""
        return self.above / self.total

    @property
    def after(self) -> np.ndarray:
        """False-positive rate with this score detected as well."""
        return (self.above + self.at) / self.total


def count_images(scores: np.ndarray, defective: np.ndarray) -> ThresholdCounts | None:
    """Counts of images; ``None`` without good or without defective ones.

    Args:
        scores: Float (N,).
        defective: bool (N,).

    Raises:
        ModelError: A score is NaN.
    """
    scores, defective = np.asarray(scores), np.asarray(defective, dtype=bool)
    if np.isnan(scores).any():
        raise ModelError(NOT_A_NUMBER)
    if not defective.any() or defective.all():
        return None
    levels, counts = np.unique(scores[defective], return_counts=True)
    good = np.sort(scores[~defective])
    below, upto = np.searchsorted(good, levels), np.searchsorted(good, levels, side="right")
    return ThresholdCounts(counts, len(good) - upto, upto - below, len(good), np.empty(0))


def count_pixels(maps: Maps, masks: Masks, workers: int | None = None) -> ThresholdCounts | None:
    """Counts of the pixels of all maps; ``None`` without defective or without defect-free ones.

    Arguments and errors are those of `exact.pixel_metrics`.
    """
    if len(maps) != len(masks):
        raise ValueError(f"{len(maps)} maps but {len(masks)} masks; give one for each")
    scores, shares = _defective(maps, masks)
    if not len(scores):
        return None
    order = np.argsort(scores)
    scores = scores[order]
    if np.isnan(scores[-1]):
        raise ModelError(NOT_A_NUMBER)
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    counts = np.diff(np.r_[starts, len(scores)])
    below, at, total = _count_all(maps, scores[starts], workers)
    if total == len(scores):
        return None
    # `below`, `at` and `total` include the defective pixels, which are subtracted.
    return ThresholdCounts(
        defective=counts,
        above=total - below - at - (len(scores) - counts.cumsum()),
        at=at - counts,
        total=total - len(scores),
        overlap=np.add.reduceat(shares[order], starts),
    )


def _defective(maps: Maps, masks: Masks) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the defective pixels, and their shares of the mean overlap, which sum to 1."""
    scores, shares, regions = [], [], 0
    for i in range(len(masks)):
        mask = masks[i]
        if mask is None:
            continue
        anomaly_map = np.asarray(maps[i], dtype=np.float32)
        if mask.shape != anomaly_map.shape:
            raise ValueError(f"mask {i} is {mask.shape}, but its map is {anomaly_map.shape}")
        indices, share, count = defective_pixels(mask)
        scores.append(anomaly_map.ravel()[indices])
        shares.append(share)
        regions += count
    if not regions:
        return np.empty(0, np.float32), np.empty(0)
    return np.concatenate(scores), np.concatenate(shares) / regions


def _count_all(
    maps: Maps, levels: np.ndarray, workers: int | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Number of pixels below and at each level, int64 (U,) each, and of all pixels."""
    images, lock = iter(range(len(maps))), Lock()
    size = min(max(CHUNK_PIXELS, PIXELS_PER_LEVEL * len(levels)), MAX_CHUNK_PIXELS)
    below, at = np.zeros((2, len(levels)), np.int64)

    def count(_: int) -> int:
        total, buffer = 0, np.empty(0, np.float32)  # reused, to avoid page faults
        while chunk := _chunk(maps, images, size):
            length = sum(map(len, chunk))
            if length > len(buffer):
                buffer = np.empty(length, np.float32)
            pixels = np.concatenate(chunk, out=buffer[:length])
            del chunk
            pixels.sort()
            if len(pixels) and np.isnan(pixels[-1]):
                raise ModelError(NOT_A_NUMBER)
            for part, *counts in _count_blocks(pixels, levels):
                with lock:
                    below[part] += counts[0]
                    at[part] += counts[1]
            total += len(pixels)
        return total

    threads = workers or min(MAX_WORKERS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:  # numpy releases the GIL
        return below, at, sum(pool.map(count, range(threads)))


def _chunk(maps: Maps, images: Iterator[int], size: int) -> list[np.ndarray]:
    """Pixels of the next maps, at least ``size`` in all."""
    chunk: list[np.ndarray] = []
    pixels = 0
    while pixels < size and (i := next(images, None)) is not None:
        chunk.append(counted(maps[i]))
        pixels += len(chunk[-1])
    return chunk


def _count_blocks(
    pixels: np.ndarray, levels: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Number of sorted pixels below and at each level, by blocks of levels.

    A block fits into the CPU cache and is searched only in the pixels within its range.
    """
    ends = [*pixels.searchsorted(levels[::BLOCK_LEVELS]), len(pixels)]
    for block, (start, end) in enumerate(pairwise(ends)):
        part = slice(block * BLOCK_LEVELS, (block + 1) * BLOCK_LEVELS)
        values, near = levels[part], pixels[start:end]
        below, equal = near.searchsorted(values), np.zeros(len(values), np.int64)
        if len(near):
            hit = np.flatnonzero(near.take(below, mode="clip") == values)
            equal[hit] = near.searchsorted(values[hit], side="right") - below[hit]
        yield part, below + start, equal


def counted(anomaly_map: np.ndarray) -> np.ndarray:
    """The unmasked pixels of a map, float32 (P,)."""
    if isinstance(anomaly_map, np.ma.MaskedArray):
        anomaly_map = anomaly_map.compressed()
    return np.asarray(anomaly_map, dtype=np.float32).ravel()


def defective_pixels(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The defective pixels and their share of their region.

    Args:
        mask: bool (H, W).

    Returns:
        Flat indices, int64 (P,), ascending; shares, 1 / area of the region, float64 (P,); number
        of 8-connected regions.
    """
    indices = np.flatnonzero(mask)
    if not len(indices):
        return indices, np.empty(0), 0
    # Labelling is the slowest part, so only the bounding box of the defects is labelled.
    columns = np.flatnonzero(mask.any(0))
    left, width = columns[0], mask.shape[1]
    rows = slice(indices[0] // width, indices[-1] // width + 1)
    box = np.ascontiguousarray(mask[rows, left : columns[-1] + 1])
    labels, count = ndimage.label(box, structure=EIGHT_CONNECTED)
    region = labels[box]
    return indices, (1.0 / np.bincount(region)[1:])[region - 1], count
