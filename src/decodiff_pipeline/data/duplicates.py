"""Images that occur twice: equal pixels, or a difference hash that is nearly equal.

The hash has 256 bits that survive scaling and recompression.
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
# Bits of either kind below which a hash says nothing: all white sheets are alike, whatever is on
# them, and so are all that get brighter from left to right.
MIN_BITS = 16
# Of all references, how many candidates a query may have: a candidate takes several times as long
# as a reference that is compared in its order.
MOST_CANDIDATES = 0.25
MANY_PAIRS = 4_000_000_000  # half a minute
CHUNK = 1 << 20  # candidates, 64 bytes each
SAMPLE = 4096  # hashes that tell how telling a bit is, or that are decoded at once
FITTED = (splits.TRAIN, splits.VAL, splits.CALIBRATION)


def difference_hash(image: Image.Image) -> str:
    """Returns the difference hash (dHash) of an image: 64 hexadecimal digits.

    The image is brought to 17x16 grey; each bit says whether a pixel is brighter than its left
    neighbour. 16x16 rather than the usual 8x8, because parts in the same pose share the coarse
    outline: on 8x8 most images of one industrial category look like duplicates.
    """
    small = image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.int16)
    return np.packbits(pixels[:, 1:] > pixels[:, :-1]).tobytes().hex()


def nearest_within(wanted: np.ndarray, known: np.ndarray, bits: int) -> tuple[np.ndarray, int]:
    """Finds the nearest reference of each query by Hamming distance, where one is near enough.

    The hash is divided into ``bits + 1`` bands. Two hashes that differ in at most ``bits`` bits
    are equal in at least one band, so only references with an equal band are compared
    (multi-index hashing, Norouzi et al. 2012). Queries with too many of these are compared with
    every reference.

    Args:
        wanted: uint64 (N, 4), as `unpack` returns them.
        known: The references, uint64 (M, 4), each once.
        bits: Largest distance, 0 to 256.

    Returns:
        Index into ``known``, int64 (N,), the first of equally near ones and -1 for none; and
        how many queries were compared with every reference.
    """
    number = len(known)
    if not number:
        return np.full(len(wanted), -1), 0
    # Distance and index as one number, so that the smallest is the first of the nearest.
    none = (bits + 1) * number
    best = np.full(len(wanted), none, np.int64)
    alike = np.zeros(len(wanted), bool)
    bands = _bands(known, bits + 1)
    for band in bands:
        keys = _band(known, band)
        order = np.argsort(keys, kind="stable")
        searched, keys = _band(wanted, band), keys[order]
        start = np.searchsorted(keys, searched)
        count = np.searchsorted(keys, searched, side="right") - start
        alike |= count > number / len(bands) * MOST_CANDIDATES
        count[alike] = 0
        for rows in _chunks(count):
            near = order[_ranges(start[rows], count[rows])]
            apart = _distance(known[near], np.repeat(wanted[rows], count[rows], axis=0))
            first = np.cumsum(count[rows]) - count[rows]
            found = np.minimum.reduceat(apart * number + near, first)
            best[rows] = np.minimum(best[rows], found)
    for row in np.flatnonzero(alike):
        apart = _distance(known, wanted[row])
        best[row] = apart.min() * number + apart.argmin()
    return np.where(best < none, best % number, -1), int(alike.sum())


def _bands(hashes: np.ndarray, number: int) -> list[np.ndarray]:
    """Divides the numbers of the bits among bands, of each at most 64, the most telling first.

    Bits that are the same in most hashes are dealt out evenly: a band of these would hold for all.
    """
    sample = hashes[:: max(1, len(hashes) // SAMPLE)]
    share = np.array([_bit(sample, bit).mean() for bit in range(BITS)])
    order = np.argsort(abs(share - 0.5), kind="stable")
    return [order[start::number][:64] for start in range(min(number, BITS))]


def _band(hashes: np.ndarray, band: np.ndarray) -> np.ndarray:
    """Some bits of each hash as one number: uint64 (N, 4) → uint64 (N,)."""
    keys = np.zeros(len(hashes), np.uint64)
    for place, bit in enumerate(band):
        keys |= _bit(hashes, bit) << np.uint64(place)
    return keys


def _bit(hashes: np.ndarray, bit: int) -> np.ndarray:
    word, place = divmod(int(bit), 64)
    return (hashes[:, word] >> np.uint64(place)) & np.uint64(1)


def _chunks(count: np.ndarray) -> Iterator[np.ndarray]:
    """Rows that have candidates, in groups of about `CHUNK` candidates."""
    rows = np.flatnonzero(count)
    group = np.cumsum(count[rows]) // CHUNK
    yield from np.split(rows, np.flatnonzero(np.diff(group)) + 1) if len(rows) else ()


def _ranges(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """The numbers start, start + 1, … of each range, one range after the other."""
    skipped = start - (np.cumsum(count) - count)
    return np.arange(count.sum()) + np.repeat(skipped, count)


def _distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Bits that differ between uint64 (N, 4) and (N, 4) or (4,): int64 (N,).

    Word by word, which is four times as fast as a sum over the second axis.
    """
    apart = np.zeros(len(one), np.int64)
    for word in range(BITS // 64):
        apart += np.bitwise_count(one[:, word] ^ other[..., word])
    return apart


def duplicate_of(manifest: pd.DataFrame) -> pd.Series:
    """Train, val or calibration image, of any category, with the pixels of a test image.

    Args:
        manifest: Rows with `data.manifest.COLUMNS`, of which ``pixels_sha256`` may be empty, or
            missing in a manifest made before that column existed.

    Returns:
        A path for each row, with the manifest's index; empty where there is none.
    """
    pictures = pixel_digests(manifest)
    fitted = manifest["split"].isin(FITTED)
    known = manifest["path"][fitted].groupby(pictures[fitted]).first()
    found = pictures[manifest["split"] == splits.TEST].map(known).dropna()
    return found.reindex(manifest.index, fill_value="")


def differing_duplicate_of(manifest: pd.DataFrame, column: str) -> pd.Series:
    """An image of equal pixels with another label or category.

    Args:
        manifest: As for `duplicate_of`.
        column: What must be the same: ``label`` or ``category``.

    Returns:
        As `duplicate_of`; empty also for the first image, which the others are compared with.
    """
    groups = manifest.groupby(pixel_digests(manifest))
    paths, first = (groups[name].transform("first") for name in ("path", column))
    return paths[first.notna() & (first != manifest[column])].reindex(manifest.index, fill_value="")


def pixel_digests(manifest: pd.DataFrame) -> pd.Series:
    """What tells pictures apart: the digest of their pixels; missing where there is none."""
    name = "pixels_sha256" if "pixels_sha256" in manifest else "sha256"
    return manifest[name].where(manifest[name] != "")


def near_duplicate_of(manifest: pd.DataFrame, bits: int) -> pd.Series:
    """Train, val or calibration image of its category that a test image looks most like.

    Args:
        bits: How many of the 256 bits may differ.

    Returns:
        As `duplicate_of`; empty also where the nearest image is further off than ``bits``, or the
        hash of the test image has fewer than `MIN_BITS` bits that are set, or that are not.
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
        known, asked = (np.flatnonzero((codes == code) & kind) for kind in (fitted, test))
        if not len(known) or not len(asked):
            continue
        known = known[np.sort(np.unique(hashes[known], axis=0, return_index=True)[1])]
        index, alike = nearest_within(hashes[asked], hashes[known], bits)
        if alike * len(known) > MANY_PAIRS:
            logger.warning(
                "category %s: %d of %d test images resemble many of the %d images outside test, so "
                "all pairs were compared, which takes a minute for 8,000,000,000 pairs; a lower "
                "near_duplicate_bits (now %d) compares fewer",
                category, alike, len(asked), len(known), bits,
            )  # fmt: skip
        near = index >= 0
        nearest = manifest["path"].iloc[rows[known[index[near]]]]
        found.iloc[rows[asked[near]]] = nearest.to_numpy()
    return found


def unpack(hashes: Sequence[str] | pd.Series) -> np.ndarray:
    """Turns N hashes into uint64 (N, 4)."""
    words = np.empty((len(hashes), BITS // 64), np.uint64)
    for start in range(0, len(hashes), SAMPLE):
        part = bytes.fromhex("".join(hashes[start : start + SAMPLE]))
        words[start : start + SAMPLE] = np.frombuffer(part, np.uint64).reshape(-1, BITS // 64)
    return words
