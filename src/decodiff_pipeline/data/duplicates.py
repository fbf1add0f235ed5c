"""Images that occur twice: equal pixels, or a difference hash that is nearly equal.

The hash has 256 bits that survive scaling and recompression.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from decodiff_pipeline.data import splits

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDE = 16
BITS = SIDE * SIDE
# Bits of either kind below which a hash says nothing: all white sheets are alike, whatever is on
# them, and so are all that get brighter from left to right.
MIN_BITS = 16
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


def nearest(queries: Sequence[str], references: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Finds the nearest reference of each query by Hamming distance.

    Returns:
        Index into `references` and distance in bits (0 to 256), each int64 (N,).
    """
    table = _unpack(references)  # (M, 4)
    index = np.zeros(len(queries), dtype=np.int64)
    distance = np.zeros(len(queries), dtype=np.int64)
    for row, query in enumerate(_unpack(queries)):
        bits = np.bitwise_count(table ^ query).sum(axis=1, dtype=np.int64)  # (M,)
        index[row] = bits.argmin()
        distance[row] = bits[index[row]]
    return index, distance


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
    found: dict[int, str] = {}
    for _, group in manifest[manifest["dhash"] != ""].groupby("category"):
        fitted = group[group["split"].isin(FITTED)]
        test = group[group["split"] == splits.TEST]
        if fitted.empty or test.empty:
            continue
        index, distance = nearest(list(test["dhash"]), list(fitted["dhash"]))
        ones = np.bitwise_count(_unpack(list(test["dhash"]))).sum(axis=1, dtype=np.int64)
        detail = np.minimum(ones, BITS - ones)
        for row, match, apart, set_bits in zip(test.index, index, distance, detail, strict=True):
            if apart <= bits and set_bits >= MIN_BITS:
                found[row] = fitted["path"].iloc[match]
    return pd.Series(found, dtype="str").reindex(manifest.index, fill_value="")


def _unpack(hashes: Sequence[str]) -> np.ndarray:
    """Turns N hashes into uint64 (N, 4)."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint64).reshape(-1, BITS // 64)
