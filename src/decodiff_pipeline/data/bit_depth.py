"""Bit depth of 16-bit images, such as 12 for a camera that stores 12-bit values in 16-bit files.

All 16-bit images of a category have the same depth, for every reader. The depths are saved with
the model; a model without them reads all 16 bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from decodiff_pipeline.deco.colour import FULL_DEPTH
from decodiff_pipeline.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from decodiff_pipeline.data.decoding import ImageFile
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline

DEPTHS = (8, 10, 12, 14, FULL_DEPTH)
COLUMN = "bit_depth"  # of the manifest: bits that a 16-bit image uses, 0 for other images


def smallest_depth(largest: int) -> int:
    """The smallest of `DEPTHS` that can represent ``largest``, 0…65535."""
    return next(bits for bits in DEPTHS if largest < 2**bits)


def depth_of_categories(manifest: pd.DataFrame) -> dict[str, int]:
    """Category → bit depth, for categories whose 16-bit images use fewer than 16 bits."""
    if COLUMN not in manifest:  # a manifest from before this column existed
        return {}
    deep = manifest[manifest[COLUMN].between(1, FULL_DEPTH - 1)]
    return {str(name): int(bits) for name, bits in deep.groupby("category")[COLUMN].max().items()}


def bits_by_path(manifest: pd.DataFrame, depths: Mapping[str, int] | None = None) -> dict[str, int]:
    """Path → bit depth, for images with a depth below 16 bits.

    ``depths`` (category → bit depth) replaces the depths in the manifest.
    """
    if COLUMN not in manifest:
        return {}
    rows = manifest[manifest[COLUMN] > 0]
    bits = rows[COLUMN] if depths is None else rows["category"].map(depths).fillna(FULL_DEPTH)
    return {
        str(path): int(depth)
        for path, depth in zip(rows["path"], bits, strict=True)
        if depth < FULL_DEPTH
    }


def pixel_identities(rows: pd.DataFrame) -> pd.Series:
    """Key of each image's pixels: SHA-256 of the file, and the bit depth if it is below 16."""
    if COLUMN not in rows:
        return rows["sha256"]
    shallow = rows[COLUMN].between(1, FULL_DEPTH - 1)
    with_depth = rows["sha256"] + " " + rows[COLUMN].astype(str) + " bits"
    return rows["sha256"].where(~shallow, with_depth)


def depth_of(category: str | None, model: DeCoDiffPipeline, file: ImageFile, name: Path) -> int:
    """Bit depth by which a model reads a file, if the file has 16 bits.

    Args:
        category: ``None`` if it is still unknown.
        name: File name for messages.

    Raises:
        ImageError: The category of a 16-bit file is unknown, and the model's depths differ.
    """
    depths = {one: model.bit_depths.get(one, FULL_DEPTH) for one in model.categories}
    if category is not None:
        return depths[category]
    if len(set(depths.values())) > 1 and file.deep is not None:
        raise ImageError(
            f"{name} has 16 bits, of which the model's categories use different numbers: name its "
            "category."
        )
    return next(iter(depths.values()))
