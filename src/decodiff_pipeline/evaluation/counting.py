"""How many of very many numbers lie above each of some levels, without sorting them.

Sorting is what exact pixel metrics spend their time on. It is not needed: a float32 keeps its
order as an integer of the same bits, so the leading bits are a bucket number, and a number whose
bucket holds no level is placed by one look-up. Only the few that share a bucket with a level are
compared with it.
"""

from __future__ import annotations

import numpy as np

BUCKETS_PER_LEVEL = 8  # about one number in eight is left to be compared, or fewer
MIN_BUCKETS = 1 << 16
MAX_BUCKETS = 1 << 24  # 64 MiB
MAGNITUDE = np.int32(0x7FFFFFFF)


class Levels:
    """Sorted levels and the table that places numbers between them.

    Args:
        scores: float32 (U,), ascending and distinct, U ≥ 1, no NaN.
    """

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores
        keys = ordered_bits(scores)
        span = int(keys[-1]) - int(keys[0])
        wanted = min(max(MIN_BUCKETS, BUCKETS_PER_LEVEL * len(scores)), MAX_BUCKETS)
        self._shift = max(0, span.bit_length() - wanted.bit_length() + 1)
        # One empty bucket at either end, for numbers below and above all levels.
        self._lowest = (int(keys[0]) >> self._shift) - 1
        buckets = (keys >> self._shift).astype(np.int64) - self._lowest
        counts = np.bincount(buckets, minlength=int(buckets[-1]) + 2)
        # For an empty bucket: how many levels lie below it. For the others: -1.
        self._below = np.where(counts > 0, -1, counts.cumsum()).astype(np.int32)

    def count(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place numbers between the levels.

        Args:
            values: float32 (M,), no NaN.

        Returns:
            Two int64 arrays. (U + 1,): how many numbers are at or above exactly k levels.
            (U,): how many numbers equal each level.
        """
        buckets = ordered_bits(values) >> self._shift
        np.clip(buckets, self._lowest, self._lowest + len(self._below) - 1, out=buckets)
        buckets -= np.int32(self._lowest)
        place = self._below.take(buckets)
        close = np.sort(values[place < 0])
        reached = np.searchsorted(self.scores, close, side="right")
        equal = reached[(reached > 0) & (self.scores[reached - 1] == close)] - 1
        u = len(self.scores)
        histogram = np.bincount(place[place >= 0], minlength=u + 1)
        histogram += np.bincount(reached, minlength=u + 1)
        return histogram, np.bincount(equal, minlength=u)


def ordered_bits(values: np.ndarray) -> np.ndarray:
    """int32 in the order of the float32 numbers; -0 and 0 are one."""
    bits = (values + np.float32(0)).view(np.int32)
    negative = bits >> 31  # all ones for negative numbers, whose magnitude counts down
    return bits ^ (negative & MAGNITUDE)


def ordered_numbers(bits: np.ndarray) -> np.ndarray:
    """The float32 numbers of `ordered_bits`; what lies below -infinity becomes that."""
    numbers = (bits ^ ((bits >> 31) & MAGNITUDE)).view(np.float32)
    return np.where(np.isnan(numbers), np.float32(-np.inf), numbers)
