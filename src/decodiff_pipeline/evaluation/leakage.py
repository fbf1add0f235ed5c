"""Test images that were all but seen in training: they flatter a model."""

from __future__ import annotations

import pandas as pd

from decodiff_pipeline.data.near_duplicates import duplicate_of, near_duplicate_of


def near_duplicates(manifest: pd.DataFrame, bits: int | None) -> pd.Series:
    """Which test images have a double among the train, val and calibration images.

    A double has equal pixels, or is of the same category and nearly equal in its difference hash.

    Args:
        manifest: The validated manifest, with the images outside test.
        bits: How many of the hash's 256 bits may differ; ``None`` to call nothing a double.

    Returns:
        Bool, with the manifest's index; False for all images outside test.
    """
    found = pd.Series(False, index=manifest.index)
    if bits is None:
        return found
    found |= duplicate_of(manifest) != ""
    if "dhash" in manifest:
        found |= near_duplicate_of(manifest, bits) != ""
    return found


def near_duplicate_paths(manifest: pd.DataFrame, bits: int | None) -> frozenset[str]:
    """Paths of the images that `near_duplicates` marks, to find them in another table."""
    return frozenset(manifest["path"][near_duplicates(manifest, bits)])
