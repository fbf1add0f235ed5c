"""Split of good images into train, val and calibration by a hash of their content.

The split of an image depends on the seed and on its SHA-256 only. Renaming an image does not change
its split, identical images share one, and a new image does not move others, except to fill the
minimum sizes that `assign_splits` guarantees.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

TRAIN = "train"
VAL = "val"
CALIBRATION = "calibration"
TEST = "test"
EXCLUDED = "excluded"
SPLITS = (TRAIN, VAL, CALIBRATION, TEST, EXCLUDED)
FEW = 100  # images; with fewer, the hash alone may leave val or calibration nearly empty
LEAST_SHARE = 0.1


def unit_hash(seed: int | str, sha256: str) -> float:
    """Hash the arguments to a number in [0, 1), uniformly distributed."""
    digest = hashlib.sha256(f"{seed}:{sha256}".encode()).hexdigest()
    return int(digest[:8], 16) / 2**32


def assign_splits(
    digests: Iterable[str],
    *,
    seed: int,
    val_fraction: float,
    calibration_fraction: float,
    test_fraction: float = 0.0,
    version: int = 1,
) -> dict[str, str]:
    """Split the good images of one category.

    Test images are drawn first, by a separate hash. The others are split by
    u = `unit_hash(seed, digest)`: val if u < `val_fraction`, calibration if
    u < `val_fraction + calibration_fraction`, else train. An empty split whose fraction is not zero
    then gets the train image with the smallest u. In version 2, with fewer than `FEW` images
    outside test, val and calibration are filled from train in the order of u to at least
    `min(fraction, LEAST_SHARE)` of them, rounded down. Filling leaves at least two train images.

    Args:
        digests: SHA-256 of each image; may contain duplicates.
        val_fraction: Share of the images outside test, in [0, 1).
        calibration_fraction: As `val_fraction`; the sum of both is below 1.
        test_fraction: Share of all images, in [0, 1).

    Returns:
        Digest → split.
    """
    splits = {digest: TRAIN for digest in digests}
    for digest in splits:
        u = unit_hash(seed, digest)
        if unit_hash(f"{seed}:{TEST}", digest) < test_fraction:
            splits[digest] = TEST
        elif u < val_fraction:
            splits[digest] = VAL
        elif u < val_fraction + calibration_fraction:
            splits[digest] = CALIBRATION
    if splits and TRAIN not in splits.values():  # training needs at least one image
        splits[max(splits, key=lambda digest: unit_hash(seed, digest))] = TRAIN
    if test_fraction > 0:
        _fill(splits, TEST, f"{seed}:{TEST}", 1)
    count = sum(split != TEST for split in splits.values())
    for split, fraction in ((VAL, val_fraction), (CALIBRATION, calibration_fraction)):
        if fraction > 0:
            share = min(fraction, LEAST_SHARE) if version > 1 and count < FEW else 0.0
            _fill(splits, split, seed, max(1, int(share * count)))
    return splits


def divide_held_out(
    digests: Iterable[str], *, seed: int, val_fraction: float, calibration_fraction: float
) -> dict[str, str]:
    """Divide a data set's own validation images into val and calibration, by `unit_hash`.

    The expected sizes are proportional to the fractions; all images go to val if both are zero. If
    both fractions are positive and there are two different images, neither split is empty.
    Arguments and result are as for `assign_splits`.
    """
    limit = val_fraction / ((val_fraction + calibration_fraction) or 1)
    if calibration_fraction == 0:
        limit = 1.0
    order = sorted({*digests}, key=lambda digest: unit_hash(seed, digest))
    n_val = sum(unit_hash(seed, digest) < limit for digest in order)
    if len(order) > 1 and 0 < limit < 1:
        n_val = min(max(n_val, 1), len(order) - 1)
    return {digest: VAL if i < n_val else CALIBRATION for i, digest in enumerate(order)}


def _fill(splits: dict[str, str], split: str, seed: int | str, least: int) -> None:
    """Move train images into `split` until it has `least` images; at least two stay in train."""
    train = [digest for digest, name in splits.items() if name == TRAIN]
    train.sort(key=lambda digest: unit_hash(seed, digest))
    missing = least - sum(name == split for name in splits.values())
    for digest in train[: max(0, min(missing, len(train) - 2))]:
        splits[digest] = split
