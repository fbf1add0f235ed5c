"""Pixel metrics from one small histogram an image: for curves while training, and for resampling.

A bin holds the scores with the same leading 16 bits: a sign, an exponent and 7 bits after the
point, so that it is at most 1/128 of its scores wide. Within a bin the order of scores is lost:
defective and defect-free pixels count as evenly mixed.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.metrics.exact import (
    AUPRO_5_LIMIT,
    AUPRO_LIMIT,
    PIXEL_METRICS,
    overlap_area,
    ranking,
)
from decodiff_pipeline.metrics.threshold_counts import MAX_WORKERS, NOT_A_NUMBER, defective_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decodiff_pipeline.metrics.threshold_counts import Maps, Masks

SHIFT = 16  # bits that a bin does not tell apart
MAGNITUDE = np.int32(0x7FFFFFFF)
INFINITY = 0x7F800000  # bits above it are those of NaN
BLOCK_ELEMENTS = 1 << 17  # resamples · bins at once, to stay in the processor's cache
COLUMNS = ("bins", "bin_free", "bin_defective", "bin_overlap", "regions")  # of a packed record


@dataclass(frozen=True)
class Histograms:
    """How the scores of N images lie in B bins.

    Attributes:
        levels: float32 (B,), the lower edge of each bin, ascending.
        free: int32 (N, B), defect-free pixels.
        defective: int32 (N, B), defective pixels.
        overlap: float64 (N, B), sum over the image's regions of the share of the region.
        regions: int64 (N,).
    """

    levels: np.ndarray
    free: np.ndarray
    defective: np.ndarray
    overlap: np.ndarray
    regions: np.ndarray

    def __len__(self) -> int:
        return len(self.regions)

    def placed(self, rows: Sequence[int] | np.ndarray, count: int) -> Histograms:
        """The same histograms as ``rows`` of ``count`` images; the others have no pixel.

        For images whose masks are not known: they are in no pixel metric.
        """

        def spread(array: np.ndarray) -> np.ndarray:
            out = np.zeros((count, *array.shape[1:]), array.dtype)
            out[rows] = array
            return out

        return replace(
            self,
            free=spread(self.free),
            defective=spread(self.defective),
            overlap=spread(self.overlap),
            regions=spread(self.regions),
        )


@dataclass
class _Image:
    """Bins that one image has scores in, ascending: each (K,)."""

    bins: np.ndarray  # int32, leading bits in the order of the scores
    free: np.ndarray
    defective: np.ndarray
    overlap: np.ndarray
    regions: int


def image_histograms(maps: Maps, masks: Masks, workers: int | None = None) -> Histograms:
    """Count the scores of each image.

    Args:
        maps: Float32 anomaly maps, (N, H, W) or any sequence of (H, W), which may differ in size;
            each is read once.
        masks: For each map bool (H, W), True on defects, or ``None`` for an image without any.
        workers: Threads; by default one a core.

    Raises:
        ValueError: There are not as many masks as maps, or their shapes differ.
        ModelError: A map holds a NaN.
    """
    if len(maps) != len(masks):
        raise ValueError(f"{len(maps)} maps but {len(masks)} masks; give one for each")
    threads = workers or min(MAX_WORKERS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        return _stacked(
            list(pool.map(lambda i: _image(i, maps[i], masks[i]), range(len(maps)))),
        )


def binned_metrics(
    histograms: Histograms, weights: np.ndarray | None = None, limit: float = AUPRO_LIMIT
) -> dict[str, np.ndarray]:
    """The pixel metrics, the pixels of one bin evenly mixed.

    Args:
        histograms: Of N images.
        weights: How often each image counts: (N,), or (R, N) for R resamples; once by default.

    Returns:
        `metrics.PIXEL_METRICS` as float64 (R,), or () without an axis of resamples; NaN where
        there are not both defective and defect-free pixels.
    """
    weights = np.ones(len(histograms)) if weights is None else np.asarray(weights)
    several = np.atleast_2d(weights)
    result = np.full((len(PIXEL_METRICS), len(several)), np.nan)
    if len(histograms.levels):
        columns = _Columns(histograms)
        step = max(1, BLOCK_ELEMENTS // len(histograms.levels))
        for start in range(0, len(several), step):
            block = slice(start, start + step)
            result[:, block] = columns.measure(several[block].astype(np.float64), limit)
    shape = weights.shape[:-1]
    return {name: row.reshape(shape) for name, row in zip(PIXEL_METRICS, result, strict=True)}


def pack(histograms: Histograms) -> pd.DataFrame:
    """One row an image, with lists of the bins that it has scores in; for Parquet.

    Returns:
        ``bins`` (int32, the leading bits of the scores, in their order), ``bin_free``,
        ``bin_defective`` (int32), ``bin_overlap`` (float64), ``regions``.
    """
    bins = bins_of(histograms.levels) if len(histograms.levels) else np.empty(0, np.int32)
    used = (histograms.free > 0) | (histograms.defective > 0)
    return pd.DataFrame(
        {
            "bins": [bins[row] for row in used],
            "bin_free": _rows(histograms.free, used),
            "bin_defective": _rows(histograms.defective, used),
            "bin_overlap": _rows(histograms.overlap, used),
            "regions": histograms.regions,
        },
        columns=list(COLUMNS),
    )


def unpack(frame: pd.DataFrame) -> Histograms:
    """Histograms from the columns that `pack` made."""
    return _stacked(
        [
            _Image(
                np.asarray(bins, np.int32),
                np.asarray(free, np.int32),
                np.asarray(defective, np.int32),
                np.asarray(overlap, np.float64),
                int(regions),
            )
            for bins, free, defective, overlap, regions in zip(
                *(frame[name] for name in COLUMNS), strict=True
            )
        ]
    )


class _Columns:
    """Histograms as float64, without the images that a count is 0 for."""

    def __init__(self, histograms: Histograms) -> None:
        self._marked = np.flatnonzero(histograms.regions)
        self._free = histograms.free.astype(np.float64)
        self._defective = histograms.defective[self._marked].astype(np.float64)
        self._overlap = histograms.overlap[self._marked]
        self._regions = histograms.regions[self._marked].astype(np.float64)

    def measure(self, weights: np.ndarray, limit: float) -> np.ndarray:
        """Metrics (5, R) of resamples by weights (R, N)."""
        marked = weights[:, self._marked]
        free, found = weights @ self._free, marked @ self._defective
        regions = (marked @ self._regions)[:, None]
        total = free.sum(-1, keepdims=True)
        above = total - free.cumsum(-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            overlap = marked @ self._overlap / regions
            before, after = above / total, (above + free) / total
            result = np.stack(
                [
                    *ranking(found, above, free, total, mixed=True),
                    overlap_area(overlap, before, after, limit),
                    overlap_area(overlap, before, after, AUPRO_5_LIMIT),
                ]
            )
        result[:, (regions[:, 0] == 0) | (total[:, 0] == 0)] = np.nan
        return result


def _image(number: int, anomaly_map: np.ndarray, mask: np.ndarray | None) -> _Image:
    scores = np.ascontiguousarray(anomaly_map, dtype=np.float32)
    if mask is not None and mask.shape != scores.shape:
        raise ValueError(f"mask {number} is {mask.shape}, but its map is {scores.shape}")
    keys = bins_of(scores.ravel())
    lowest = keys.min()
    keys -= lowest
    free = np.bincount(_counted_keys(keys, anomaly_map), minlength=keys.max() + 1)
    found, share, regions = (
        (np.empty(0, np.int64), np.empty(0), 0) if mask is None else defective_pixels(mask)
    )
    defective = np.bincount(keys[found], minlength=len(free))
    overlap = np.bincount(keys[found], weights=share, minlength=len(free))
    used = np.flatnonzero(free)
    return _Image(
        (used + lowest).astype(np.int32),
        (free - defective)[used],
        defective[used],
        overlap[used],
        regions,
    )


def _counted_keys(keys: np.ndarray, anomaly_map: np.ndarray) -> np.ndarray:
    if not isinstance(anomaly_map, np.ma.MaskedArray):
        return keys
    return keys[~np.ma.getmaskarray(anomaly_map).ravel()]


def _stacked(images: list[_Image]) -> Histograms:
    bins = np.unique(np.concatenate([np.empty(0, np.int32), *(image.bins for image in images)]))
    shape = len(images), len(bins)
    free, defective = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    overlap = np.zeros(shape)
    for row, image in enumerate(images):
        columns = np.searchsorted(bins, image.bins)
        free[row, columns] = image.free
        defective[row, columns] = image.defective
        overlap[row, columns] = image.overlap
    regions = np.array([image.regions for image in images], np.int64)
    return Histograms(lower_edges(bins), free, defective, overlap, regions)


def _rows(counts: np.ndarray, used: np.ndarray) -> list[np.ndarray]:
    return [row[columns] for row, columns in zip(counts, used, strict=True)]


def bins_of(numbers: np.ndarray) -> np.ndarray:
    """Bin of each number, in the order of the numbers; -0 and 0 are one.

    Args:
        numbers: float32 (K,), K ≥ 1.

    Returns:
        int32 (K,), within -2¹⁵…2¹⁵.

    Raises:
        ModelError: A number is NaN.
    """
    bits = numbers.view(np.int32)
    if bits.min() >= 0:  # as a rule; positive numbers are in the order of their bits
        if bits.max() > INFINITY:
            raise ModelError(NOT_A_NUMBER)
        return bits >> SHIFT
    if np.isnan(numbers).any():
        raise ModelError(NOT_A_NUMBER)
    bits = (numbers + np.float32(0)).view(np.int32)  # + 0 makes -0 positive
    return _flipped(bits) >> SHIFT


def lower_edges(bins: np.ndarray) -> np.ndarray:
    """The least number of each bin, float32."""
    numbers = _flipped(bins << SHIFT).view(np.float32)
    # The lowest bin holds -infinity alone; below it in the order of bits are NaN.
    return np.where(np.isnan(numbers), np.float32(-np.inf), numbers)


def _flipped(bits: np.ndarray) -> np.ndarray:
    """Between a float32's bits and an int32 in the order of the numbers, both ways."""
    return bits ^ ((bits >> 31) & MAGNITUDE)  # of negative numbers the magnitude counts down
