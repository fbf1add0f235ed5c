"""Near-duplicate images by a difference hash: 256 bits that survive scaling and recompression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDE = 16
BITS = SIDE * SIDE


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

    Args:
        queries: N hashes.
        references: M hashes, M > 0.

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


def _unpack(hashes: Sequence[str]) -> np.ndarray:
    """Turns N hashes into uint64 (N, 4)."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint64).reshape(-1, BITS // 64)
