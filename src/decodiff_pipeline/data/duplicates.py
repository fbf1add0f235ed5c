"""Finds duplicate images: equal pixels, or difference hashes that differ in few bits.

The hash has 256 bits and changes little under scaling and recompression.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from decodiff_pipeline.data import splits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

logger = logging.getLogger(__name__)

SIDE = 16
BITS = SIDE * SIDE
# Smallest number of ones and of zeros in the hash of a test image. With fewer, different images
# have similar hashes: white sheets, or images that get brighter from left to right.
MIN_BITS = 16
# Largest share of the references that may be candidates of a query. Above it, all references are
# compared in order, which takes several times less per reference.
MOST_CANDIDATES = 0.25
MANY_PAIRS = 4_000_000_000  # take half a minute
CHUNK = 1 << 20  # candidates compared at once, 64 bytes each
SAMPLE = 4096  # hashes that are unpacked at once, or that estimate how balanced a bit is
FITTED = (splits.TRAIN, splits.VAL, splits.CALIBRATION)


def difference_hash(image: Image.Image) -> str:
    """Difference hash (dHash) of an image: 64 hexadecimal digits.

    The image is resized to 17x16 grey pixels. Each bit says whether a pixel is brighter than its
    left neighbour. The usual hash is 8x8, but parts in the same pose have the same coarse outline:
    at 8x8, most images of one industrial category look like duplicates.
    """
    small = image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.int16)
    return np.packbits(pixels[:, 1:] > pixels[:, :-1]).tobytes().hex()


def nearest_within(
    queries: np.ndarray, references: np.ndarray, bits: int
) -> tuple[np.ndarray, int]:
    """Nearest reference of each query by Hamming distance, if it is within ``bits``.

    The hash is divided into ``bits + 1`` bands. Two hashes that differ in at most ``bits`` bits
    are equal in at least one band, so only references with an equal band are compared
    (multi-index hashing, Norouzi et al. 2012). Queries with too many such references are compared
    with all references.

    Args:
        queries: Queries, uint64 (N, 4), from `unpack`.
        references: References without repeats, uint64 (M, 4).
        bits: Largest distance, 0 to 256.

    Returns:
        Index into ``references``, int64 (N,): the first of equally near ones, -1 for none; and the
        number of queries that were compared with all references.
    """
    number = len(references)
    if not number:
        return np.full(len(queries), -1), 0
    # Distance and index as one number: its minimum is the first of the nearest references.
    none = (bits + 1) * number
    best = np.full(len(queries), none, np.int64)
    exhaustive = np.zeros(len(queries), bool)
    bands = _bands(references, bits + 1)
    for band in bands:
        keys = _band(references, band)
        order = np.argsort(keys, kind="stable")
        searched, keys = _band(queries, band), keys[order]
        start = np.searchsorted(keys, searched)
        count = np.searchsorted(keys, searched, side="right") - start
        exhaustive |= count > number / len(bands) * MOST_CANDIDATES
        count[exhaustive] = 0
        for rows in _groups(count):
            near = order[_concatenated_ranges(start[rows], count[rows])]
            distances = _distance(references[near], np.repeat(queries[rows], count[rows], axis=0))
            first = np.cumsum(count[rows]) - count[rows]
            found = np.minimum.reduceat(distances * number + near, first)
            best[rows] = np.minimum(best[rows], found)
    for row in np.flatnonzero(exhaustive):
        distances = _distance(references, queries[row])
        best[row] = distances.min() * number + distances.argmin()
    return np.where(best < none, best % number, -1), int(exhaustive.sum())


def _bands(hashes: np.ndarray, number: int) -> list[np.ndarray]:
    """Bit numbers of each band, at most 64, the most balanced bits first.

    Bits that are equal in most hashes are spread evenly: a band of them would match nearly all.
    """
    sample = hashes[:: max(1, len(hashes) // SAMPLE)]
    share = np.array([_bit(sample, bit).mean() for bit in range(BITS)])
    order = np.argsort(abs(share - 0.5), kind="stable")
    return [order[start::number][:64] for start in range(min(number, BITS))]


def _band(hashes: np.ndarray, band: np.ndarray) -> np.ndarray:
    """The bits of one band as an integer: uint64 (N, 4) → uint64 (N,)."""
    keys = np.zeros(len(hashes), np.uint64)
    for place, bit in enumerate(band):
        keys |= _bit(hashes, bit) << np.uint64(place)
    return keys


def _bit(hashes: np.ndarray, bit: int) -> np.ndarray:
    word, place = divmod(int(bit), 64)
    return (hashes[:, word] >> np.uint64(place)) & np.uint64(1)


def _groups(count: np.ndarray) -> Iterator[np.ndarray]:
    """Indices of rows with candidates, in groups of about `CHUNK` candidates."""
    rows = np.flatnonzero(count)
    group = np.cumsum(count[rows]) // CHUNK
    yield from np.split(rows, np.flatnonzero(np.diff(group)) + 1) if len(rows) else ()


def _concatenated_ranges(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Concatenation of the ranges start, start + 1, … of ``count`` integers each."""
    skipped = start - (np.cumsum(count) - count)
    return np.arange(count.sum()) + np.repeat(skipped, count)


def _distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Hamming distance of uint64 (N, 4) and (N, 4) or (4,): int64 (N,).

    The loop over words is four times as fast as a sum over the second axis.
    """
    distances = np.zeros(len(one), np.int64)
    for word in range(BITS // 64):
        distances += np.bitwise_count(one[:, word] ^ other[..., word])
    return distances


def duplicate_of(manifest: pd.DataFrame) -> pd.Series:
    """Train, val or calibration image, in any category, with the same pixels as a test image.

    Args:
        manifest: Rows with `data.manifest.COLUMNS`. ``pixels_sha256`` may be empty, or missing in
            an older manifest.

    Returns:
        Path for each row, with the manifest's index; empty for none.
    """
    pictures = pixel_digests(manifest)
    fitted = manifest["split"].isin(FITTED)
    known = manifest["path"][fitted].groupby(pictures[fitted]).first()
    found = pictures[manifest["split"] == splits.TEST].map(known).dropna()
    return found.reindex(manifest.index, fill_value="")


def differing_duplicate_of(manifest: pd.DataFrame, column: str) -> pd.Series:
    """Image with the same pixels and another label or category.

    Args:
        manifest: As for `duplicate_of`.
        column: Compared column, ``label`` or ``category``.

    Returns:
        As `duplicate_of`; also empty for the first image, which the others are compared with.
    """
    groups = manifest.groupby(pixel_digests(manifest))
    paths, first = (groups[name].transform("first") for name in ("path", column))
    return paths[first.notna() & (first != manifest[column])].reindex(manifest.index, fill_value="")


def pixel_digests(manifest: pd.DataFrame) -> pd.Series:
    """SHA-256 of each image's pixels, or of its file in an older manifest; missing for none."""
    name = "pixels_sha256" if "pixels_sha256" in manifest else "sha256"
    return manifest[name].where(manifest[name] != "")


def near_duplicate_of(manifest: pd.DataFrame, bits: int) -> pd.Series:
    """Most similar train, val or calibration image, in the same category, of each test image.

    Args:
        bits: Largest Hamming distance of the 256-bit hashes.

    Returns:
        As `duplicate_of`; also empty if no image is within ``bits``, or if the hash of the test
        image has fewer than `MIN_BITS` ones or zeros.
    """
    found = pd.Series("", index=manifest.index, dtype="str")
    rows = np.flatnonzero(manifest["dhash"] != "")
    hashes = unpack(manifest["dhash"].iloc[rows])
    ones = np.bitwise_count(hashes).sum(axis=1, dtype=np.int64)
    fitted = manifest["split"].isin(FITTED).to_numpy()[rows]
    test = (manifest["split"] == splits.TEST).to_numpy()[rows]
    test &= np.minimum(ones, BITS - ones) >= MIN_BITS
    codes, categories = pd.factorize(manifest["category"].iloc[rows], sort=True)
    for code, category in enumerate(categories):
        known, queries = (np.flatnonzero((codes == code) & kind) for kind in (fitted, test))
        if not len(known) or not len(queries):
            continue
        known = known[np.sort(np.unique(hashes[known], axis=0, return_index=True)[1])]
        index, exhaustive = nearest_within(hashes[queries], hashes[known], bits)
        if exhaustive * len(known) > MANY_PAIRS:
            logger.warning(
                "category %s: %d of %d test images resemble many of the %d images outside test, so "
                "all pairs were compared, which takes a minute for 8,000,000,000 pairs; a lower "
                "near_duplicate_bits (now %d) compares fewer",
                category, exhaustive, len(queries), len(known), bits,
            )  # fmt: skip
        near = index >= 0
        nearest = manifest["path"].iloc[rows[known[index[near]]]]
        found.iloc[rows[queries[near]]] = nearest.to_numpy()
    return found


def unpack(hashes: Sequence[str] | pd.Series) -> np.ndarray:
    """Convert N hexadecimal hashes to uint64 (N, 4)."""
    words = np.empty((len(hashes), BITS // 64), np.uint64)
    for start in range(0, len(hashes), SAMPLE):
        part = bytes.fromhex("".join(hashes[start : start + SAMPLE]))
        words[start : start + SAMPLE] = np.frombuffer(part, np.uint64).reshape(-1, BITS // 64)
    return words
