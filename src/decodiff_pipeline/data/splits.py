"""Assigns good images to train, val and calibration, by their content.

A split follows from the seed and the image's SHA-256 alone: a renamed image stays where it was,
equal images land together, and a new image moves no other (but for the minimum below).
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
FEW = 100  # images, below which the hash alone may leave next to none to val or calibration
LEAST_SHARE = 0.1


def unit_hash(seed: int | str, sha256: str) -> float:
    """Returns a number in [0, 1) that looks uniform and follows from its arguments alone."""
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
    """Splits the good images of one category.

    The number u in [0, 1) of an image is `unit_hash(seed, digest)`: below `val_fraction` it goes
    to val, below `val_fraction + calibration_fraction` to calibration, else to train. Test is
    drawn first, with a hash of its own. A split that is wanted and would be empty gets the train
    image of the smallest u. In version 2, of fewer than `FEW` images, val and calibration get at
    least their fraction each (a tenth where that is less), rounded down: train images in the order
    of u.

    Args:
        digests: SHA-256 of each image, repeats allowed.
        val_fraction: Share of the images that are not test, in [0, 1).
        calibration_fraction: As `val_fraction`; their sum is below 1.
        test_fraction: Share of all images, in [0, 1).

    Returns:
        The split of each digest.
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
    if splits and TRAIN not in splits.values():  # nothing can be learnt without a train image
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
    """Splits good images that a data set keeps for validation into val and calibration.

    They are shared in the proportion of the fractions, by `unit_hash`; all go to val where both
    are zero. Where both splits are wanted, neither is empty as long as there are two different
    images. Arguments and result are as for `assign_splits`.
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
    """Moves train images into `split` until it has `least`; two stay in train."""
    train = [digest for digest, name in splits.items() if name == TRAIN]
    train.sort(key=lambda digest: unit_hash(seed, digest))
    missing = least - sum(name == split for name in splits.values())
    for digest in train[: max(0, min(missing, len(train) - 2))]:
        splits[digest] = split
