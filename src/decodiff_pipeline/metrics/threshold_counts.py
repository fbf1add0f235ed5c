"""How many images or pixels lie at and above each score of a defective one: all that metrics need.

No metric changes at a threshold that nothing defective has: TP stays, FP grows, and the region
overlap stays. So exact metrics follow from a few numbers for each distinct score u of a defective
pixel: how many defective pixels have it, what share of the regions they are, and how many
defect-free pixels lie above and at u. The defect-free pixels, nearly all there are, need no common
order for that: all pixels are sorted and counted in chunks, on all cores, and the defective ones
subtracted.
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
CHUNK_PIXELS = 1 << 21  # per worker at once; more where there are many levels to look up
MAX_CHUNK_PIXELS = 1 << 24  # 64 MB
PIXELS_PER_LEVEL = 8
BLOCK_LEVELS = 1 << 12
MAX_WORKERS = 4
NOT_A_NUMBER = (
    "a score or an anomaly map holds NaN, so metrics mean nothing; train again, then evaluate"
)


class Maps(Protocol):
    """An array (N, H, W), or anything that gives (H, W) by number.

    Of masked arrays the masked pixels count nowhere; no defect may lie on one.
    """

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


@dataclass(frozen=True)
class ThresholdCounts:
    """Counts at the distinct scores of defective images or pixels, ascending: each (U,).

    Attributes:
        defective: Defective ones with the score.
        above: Defect-free ones with a higher score.
        at: Defect-free ones with the score.
        total: All defect-free ones; above 0.
        overlap: Mean over regions of the share of the region with the score; empty for images.
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
        """False-positive rate with this score detected too."""
        return (self.above + self.at) / self.total


def count_images(scores: np.ndarray, defective: np.ndarray) -> ThresholdCounts | None:
    """Counts of images.

    Args:
        scores: Float (N,).
        defective: bool (N,).

    Returns:
        ``None`` where there are not both good and defective images.

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
    """Counts of the pixels of all maps.

    Args:
        maps: See `metrics.pixel_metrics`.
        masks: See `metrics.pixel_metrics`.
        workers: Threads; by default one a core.

    Returns:
        ``None`` where there are not both defective and defect-free pixels.

    Raises:
        ValueError: There are not as many masks as maps, or their shapes differ.
        ModelError: A map holds a NaN.
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
    # Up to here defective pixels were counted too.
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
        found, share, count = defective_pixels(mask)
        scores.append(anomaly_map.ravel()[found])
        shares.append(share)
        regions += count
    if not regions:
        return np.empty(0, np.float32), np.empty(0)
    return np.concatenate(scores), np.concatenate(shares) / regions


def _count_all(
    maps: Maps, levels: np.ndarray, workers: int | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """How many pixels lie below and at each level, and how many there are."""
    images, lock = iter(range(len(maps))), Lock()
    size = min(max(CHUNK_PIXELS, PIXELS_PER_LEVEL * len(levels)), MAX_CHUNK_PIXELS)
    below, at = np.zeros((2, len(levels)), np.int64)

    def count(_: int) -> int:
        total, buffer = 0, np.empty(0, np.float32)  # new memory at each turn costs page faults
        while chunk := _chunk(maps, images, size):
            length = sum(map(len, chunk))
            if length > len(buffer):
                buffer = np.empty(length, np.float32)
            pixels = np.concatenate(chunk, out=buffer[:length])
            del chunk
            pixels.sort()
            if len(pixels) and np.isnan(pixels[-1]):
                raise ModelError(NOT_A_NUMBER)
            for part, *counts in _looked_up(pixels, levels):
                with lock:
                    below[part] += counts[0]
                    at[part] += counts[1]
            total += len(pixels)
        return total

    threads = workers or min(MAX_WORKERS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:  # numpy lets go of the interpreter lock
        return below, at, sum(pool.map(count, range(threads)))


def _chunk(maps: Maps, images: Iterator[int], size: int) -> list[np.ndarray]:
    """Pixels of the next maps, ``size`` together or a little more."""
    chunk: list[np.ndarray] = []
    pixels = 0
    while pixels < size and (i := next(images, None)) is not None:
        chunk.append(counted(maps[i]))
        pixels += len(chunk[-1])
    return chunk


def _looked_up(
    pixels: np.ndarray, levels: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Part of the levels after part, and how many sorted pixels lie below and at each level.

    A part that fits into the cache is looked up in the pixels between its ends alone.
    """
    ends = [*pixels.searchsorted(levels[::BLOCK_LEVELS]), len(pixels)]
    for block, (start, end) in enumerate(pairwise(ends)):
        part = slice(block * BLOCK_LEVELS, (block + 1) * BLOCK_LEVELS)
        wanted, near = levels[part], pixels[start:end]
        place, equal = near.searchsorted(wanted), np.zeros(len(wanted), np.int64)
        if len(near):
            hit = np.flatnonzero(near.take(place, mode="clip") == wanted)
            equal[hit] = near.searchsorted(wanted[hit], side="right") - place[hit]
        yield part, place + start, equal


def counted(anomaly_map: np.ndarray) -> np.ndarray:
    """The pixels of a map, float32 (P,); of a masked array those that are not masked."""
    if isinstance(anomaly_map, np.ma.MaskedArray):
        anomaly_map = anomaly_map.compressed()
    return np.asarray(anomaly_map, dtype=np.float32).ravel()


def defective_pixels(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Which pixels are defective, and what share each is of its region.

    Args:
        mask: bool (H, W).

    Returns:
        Flat indices int64 (P,), ascending; float64 (P,), 1 / pixels of the region; how many
        regions there are.
    """
    found = np.flatnonzero(mask)
    if not len(found):
        return found, np.empty(0), 0
    # Labelling takes longer than all the rest, so only the box around the defects is labelled.
    columns = np.flatnonzero(mask.any(0))
    left, width = columns[0], mask.shape[1]
    rows = slice(found[0] // width, found[-1] // width + 1)
    box = np.ascontiguousarray(mask[rows, left : columns[-1] + 1])
    labels, count = ndimage.label(box, structure=EIGHT_CONNECTED)
    region = labels[box]
    return found, (1.0 / np.bincount(region)[1:])[region - 1], count
