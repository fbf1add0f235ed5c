"""Assigns good images to train, val and calibration, by their content.

A split follows from the seed and the image's SHA-256 alone: a renamed image stays where it was,
equal images land together, and a new image moves no other (but for the guarantee below).
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
) -> dict[str, str]:
    """Splits the good images of one category.

    The number u in [0, 1) of an image is `unit_hash(seed, digest)`: below `val_fraction` it goes
    to val, below `val_fraction + calibration_fraction` to calibration, else to train. Test is
    drawn first, with a hash of its own. A split that is wanted and would be empty gets the one
    image closest to it, train before the others, as long as there are images to share.

    Args:
        digests: SHA-256 of each image, repeats allowed.
        seed: Seed of the hash.
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
    for split, fraction, key in (
        (TEST, test_fraction, f"{seed}:{TEST}"),
        (VAL, val_fraction, seed),
        (CALIBRATION, calibration_fraction, seed),
    ):
        if fraction > 0:
            _fill(splits, split, key)
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


def _fill(splits: dict[str, str], split: str, seed: int | str) -> None:
    """Moves the train image that came closest to an empty `split`, unless only two are left."""
    train = [digest for digest, name in splits.items() if name == TRAIN]
    if split not in splits.values() and len(train) > 2:  # noqa: PLR2004
        splits[min(train, key=lambda digest: unit_hash(seed, digest))] = split
