"""Bins of float32 numbers: those with the same leading 16 bits, so the same bfloat16."""

from __future__ import annotations

import numpy as np

from decodiff_pipeline.errors import ModelError

SHIFT = 16  # bits that a bin does not tell apart
MAGNITUDE = np.int32(0x7FFFFFFF)
INFINITY = 0x7F800000  # bits above it are those of NaN
NOT_A_NUMBER = (
    "a score or an anomaly map holds NaN, so metrics mean nothing; train again, then evaluate"
)


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
