"""How many of its 16 bits a camera uses: 12-bit values in 16-bit files are read as 12 bits.

The depth is the same for all 16-bit images of a category, in every reader, and is kept with the
model. A model saved before this choice existed reads all 16 bits.
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
COLUMN = "bit_depth"  # of the manifest: bits that a 16-bit image is read by, 0 for other images


def smallest_depth(largest: int) -> int:
    """The smallest of `DEPTHS` that holds a value of 0…65535."""
    return next(bits for bits in DEPTHS if largest < 2**bits)


def depth_of_categories(manifest: pd.DataFrame) -> dict[str, int]:
    """The depth of each category whose 16-bit images use less than 16 bits."""
    if COLUMN not in manifest:  # a manifest made before this choice existed
        return {}
    deep = manifest[manifest[COLUMN].between(1, FULL_DEPTH - 1)]
    return {str(name): int(bits) for name, bits in deep.groupby("category")[COLUMN].max().items()}


def bits_by_path(manifest: pd.DataFrame, depths: Mapping[str, int] | None = None) -> dict[str, int]:
    """The depth of each image that is read by less than 16 bits, by its path.

    ``depths``, by category, take the place of the manifest's.
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
    """What decides the pixels of images: the SHA-256 of the file, and a depth below 16 bits."""
    if COLUMN not in rows:
        return rows["sha256"]
    shallow = rows[COLUMN].between(1, FULL_DEPTH - 1)
    with_depth = rows["sha256"] + " " + rows[COLUMN].astype(str) + " bits"
    return rows["sha256"].where(~shallow, with_depth)


def depth_of(category: str | None, model: DeCoDiffPipeline, file: ImageFile, name: Path) -> int:
    """How many bits a model reads a file by, should it have 16.

    Args:
        category: ``None`` where it is still to be recognised.
        name: Of the file, for messages.

    Raises:
        ImageError: That depends on the category, which is not known.
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
