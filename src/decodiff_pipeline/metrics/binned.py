"""Pixel metrics from one histogram per image, for bootstrap resampling.

A bin holds the float32 scores with the same leading 16 bits (sign, exponent, 7 bits of the
mantissa), so that its width is at most 1/128 of its scores. Within a bin, defective and
defect-free pixels count as evenly mixed.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

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

SHIFT = 16  # trailing bits of a score that its bin ignores
MAGNITUDE = np.int32(0x7FFFFFFF)
INFINITY = 0x7F800000  # larger bit patterns are NaN
BLOCK_ELEMENTS = 1 << 17  # resamples · bins per block, to fit into the CPU cache
DRAWN_ELEMENTS = 1 << 22  # resamples · images, or · bins, per block
DENSE_ELEMENTS = 1 << 20  # images · bins per block
COLUMNS = ("bins", "bin_free", "bin_defective", "bin_overlap", "regions")  # of `pack`


@dataclass(frozen=True)
class Histograms:
    """Histograms of the scores of N images over B common bins: the K non-empty bins of all images.

    Attributes:
        levels: Lower edge of each bin, ascending, float32 (B,).
        ends: The non-empty bins of image i are at ``ends[i]`` to ``ends[i + 1]``; int64 (N + 1,).
        bins: Indices in ``levels``, ascending for each image, int32 (K,).
        free: Number of defect-free pixels, int32 (K,).
        defective: Number of defective pixels, int32 (K,).
        overlap: Sum, over the defect regions of the image, of the share of the region in the bin,
            float64 (K,).
        regions: Number of defect regions of the image, int64 (N,).
    """

    levels: np.ndarray
    ends: np.ndarray
    bins: np.ndarray
    free: np.ndarray
    defective: np.ndarray
    overlap: np.ndarray
    regions: np.ndarray

    def __len__(self) -> int:
        return len(self.regions)

    def pixels(self) -> np.ndarray:
        """Number of defect-free and of defective pixels of each image, int64 (2, N)."""
        images = np.repeat(np.arange(len(self)), np.diff(self.ends))
        counts = [
            np.bincount(images, weights=column, minlength=len(self))
            for column in (self.free, self.defective)
        ]
        return np.array(counts, np.int64)

    def placed(self, rows: Sequence[int] | np.ndarray, count: int) -> Histograms:
        """The histograms at the ascending indices ``rows`` of ``count`` images; others are empty.

        The others are images whose masks are not known, which no pixel metric includes.
        """
        lengths, regions = np.zeros((2, count), np.int64)
        lengths[rows], regions[rows] = np.diff(self.ends), self.regions
        return replace(self, ends=np.r_[0, lengths.cumsum()], regions=regions)


@dataclass
class _Image:
    """The K non-empty bins of an image, ascending: each array (K,)."""

    bins: np.ndarray  # int32, see `bins_of`
    free: np.ndarray
    defective: np.ndarray
    overlap: np.ndarray
    regions: int


def image_histograms(maps: Maps, masks: Masks) -> Histograms:
    """Compute the histogram of each image, in threads.

    Arguments and errors are those of `exact.pixel_metrics`; each map is read once.
    """
    if len(maps) != len(masks):
        raise ValueError(f"{len(maps)} maps but {len(masks)} masks; give one for each")
    with ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1)) as pool:
        return _stacked(list(pool.map(lambda i: _image(i, maps[i], masks[i]), range(len(maps)))))


def binned_metrics(
    histograms: Histograms, weights: np.ndarray | None = None, limit: float = AUPRO_LIMIT
) -> dict[str, np.ndarray]:
    """The pixel metrics of images or of bootstrap resamples.

    Args:
        histograms: Histograms of N images.
        weights: Multiplicity of each image, (N,), or (R, N) for R resamples; 1 by default.

    Returns:
        `exact.PIXEL_METRICS`, float64 (R,), or () for one weight vector. NaN without defective
        or without defect-free pixels.
    """
    weights = np.ones(len(histograms)) if weights is None else np.asarray(weights)
    rows = np.atleast_2d(weights)
    result = np.full((len(PIXEL_METRICS), len(rows)), np.nan)
    if len(histograms.levels):
        columns = _Columns(histograms)
        step = max(1, DRAWN_ELEMENTS // max(len(histograms), len(histograms.levels)))
        for start in range(0, len(rows), step):
            block = slice(start, start + step)
            result[:, block] = columns.measure(rows[block].astype(np.float64), limit)
    shape = weights.shape[:-1]
    return {name: row.reshape(shape) for name, row in zip(PIXEL_METRICS, result, strict=True)}


def pack(histograms: Histograms) -> pd.DataFrame:
    """Convert histograms to a table for Parquet: one row per image, with its non-empty bins.

    Returns:
        ``bins`` (int32, see `bins_of`), ``bin_free``, ``bin_defective`` (int32), ``bin_overlap``
        (float64), each a list per image, and ``regions``.
    """
    levels = histograms.levels
    bins = bins_of(levels)[histograms.bins] if len(levels) else histograms.bins
    columns = (bins, histograms.free, histograms.defective, histograms.overlap)
    count = len(histograms)  # `np.split` gives one part for none
    rows = (np.split(column, histograms.ends[1:-1])[:count] for column in columns)
    return pd.DataFrame(dict(zip(COLUMNS, (*rows, histograms.regions), strict=True)))


def unpack(frame: pd.DataFrame) -> Histograms:
    """The inverse of `pack`."""
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
    """Histograms as sparse matrices (N, B); defect counts of the images with defects alone."""

    def __init__(self, histograms: Histograms) -> None:
        shape = len(histograms), len(histograms.levels)

        def matrix(counts: np.ndarray) -> sparse.csr_array:
            return sparse.csr_array((counts, histograms.bins, histograms.ends), shape)

        self._with_defects = np.flatnonzero(histograms.regions)
        self._free = matrix(histograms.free).tocsc()
        self._defective = matrix(histograms.defective)[self._with_defects].tocsc()
        self._overlap = matrix(histograms.overlap)[self._with_defects].tocsc()
        self._regions = histograms.regions[self._with_defects].astype(np.float64)

    def measure(self, weights: np.ndarray, limit: float) -> np.ndarray:
        """Metrics (5, R) of R resamples with weights (R, N)."""
        defect_weights = weights[:, self._with_defects]
        free = _sums(weights, self._free)
        defective = _sums(defect_weights, self._defective)
        overlap = _sums(defect_weights, self._overlap)
        regions = (defect_weights @ self._regions)[:, None]
        step = max(1, BLOCK_ELEMENTS // free.shape[1])
        blocks = (slice(start, start + step) for start in range(0, len(weights), step))
        parts = (
            _measure(free[block], defective[block], overlap[block], regions[block], limit)
            for block in blocks
        )
        return np.concatenate(list(parts), axis=1)


def _measure(
    free: np.ndarray, defective: np.ndarray, overlap: np.ndarray, regions: np.ndarray, limit: float
) -> np.ndarray:
    """Metrics (5, R) of the sums of R resamples, (R, B) each; ``regions`` (R, 1)."""
    total = free.sum(-1, keepdims=True)
    above = total - free.cumsum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = overlap / regions
        before, after = above / total, (above + free) / total
        result = np.stack(
            [
                *ranking(defective, above, free, total, mixed=True),
                overlap_area(share, before, after, limit),
                overlap_area(share, before, after, AUPRO_5_LIMIT),
            ]
        )
    result[:, (regions[:, 0] == 0) | (total[:, 0] == 0)] = np.nan
    return result


def _sums(weights: np.ndarray, counts: sparse.csc_array) -> np.ndarray:
    """``weights @ counts``, (R, B), by dense blocks of columns: faster than a sparse product."""
    images, bins = counts.shape
    result = np.empty((len(weights), bins))
    step = max(1, DENSE_ELEMENTS // max(1, images))
    for start in range(0, bins, step):
        block = slice(start, start + step)
        result[:, block] = weights @ counts[:, block].toarray().astype(np.float64)
    return result


def _image(number: int, anomaly_map: np.ndarray, mask: np.ndarray | None) -> _Image:
    scores = np.ascontiguousarray(anomaly_map, dtype=np.float32)
    if mask is not None and mask.shape != scores.shape:
        raise ValueError(f"mask {number} is {mask.shape}, but its map is {scores.shape}")
    keys = bins_of(scores.ravel())
    lowest = keys.min()
    keys -= lowest
    pixels = np.bincount(_unmasked(keys, anomaly_map), minlength=keys.max() + 1)
    indices, share, regions = (
        (np.empty(0, np.int64), np.empty(0), 0) if mask is None else defective_pixels(mask)
    )
    defective = np.bincount(keys[indices], minlength=len(pixels))
    overlap = np.bincount(keys[indices], weights=share, minlength=len(pixels))
    used = np.flatnonzero(pixels)
    return _Image(
        (used + lowest).astype(np.int32),
        (pixels - defective)[used].astype(np.int32),
        defective[used].astype(np.int32),
        overlap[used],
        regions,
    )


def _unmasked(keys: np.ndarray, anomaly_map: np.ndarray) -> np.ndarray:
    if not isinstance(anomaly_map, np.ma.MaskedArray):
        return keys
    return keys[~np.ma.getmaskarray(anomaly_map).ravel()]


def _stacked(images: list[_Image]) -> Histograms:
    def joined(name: str, dtype: type) -> np.ndarray:
        return np.concatenate([np.empty(0, dtype), *(getattr(image, name) for image in images)])

    bins = joined("bins", np.int32)
    levels = np.unique(bins)
    return Histograms(
        lower_edges(levels),
        np.r_[0, np.cumsum([len(image.bins) for image in images], dtype=np.int64)],
        np.searchsorted(levels, bins).astype(np.int32),
        joined("free", np.int32),
        joined("defective", np.int32),
        joined("overlap", np.float64),
        np.array([image.regions for image in images], np.int64),
    )


def bins_of(numbers: np.ndarray) -> np.ndarray:
    """Bin of each number; bins have the order of the numbers, and -0 and 0 the same bin.

    Args:
        numbers: float32 (K,), K ≥ 1.

    Returns:
        int32 (K,), within -2¹⁵…2¹⁵.

    Raises:
        ModelError: A number is NaN.
    """
    bits = numbers.view(np.int32)
    if bits.min() >= 0:  # the usual case; bits of positive numbers have the order of the numbers
        if bits.max() > INFINITY:
            raise ModelError(NOT_A_NUMBER)
        return bits >> SHIFT
    if np.isnan(numbers).any():
        raise ModelError(NOT_A_NUMBER)
    bits = (numbers + np.float32(0)).view(np.int32)  # + 0 makes -0 positive
    return _flipped(bits) >> SHIFT


def lower_edges(bins: np.ndarray) -> np.ndarray:
    """The smallest number of each bin, float32."""
    numbers = _flipped(bins << SHIFT).view(np.float32)
    # The lowest bin holds -infinity alone; its lower edge has the bits of a NaN.
    return np.where(np.isnan(numbers), np.float32(-np.inf), numbers)


def _flipped(bits: np.ndarray) -> np.ndarray:
    """Convert float32 bits to int32 in the order of the numbers, or back."""
    return bits ^ ((bits >> 31) & MAGNITUDE)  # reverses the order of the negative numbers
