"""What a crop takes away: defects that the model never sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from decodiff_pipeline.deco.geometry import plan
from decodiff_pipeline.evaluation.native import image_sizes, native_mask

if TYPE_CHECKING:
    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.config import PreprocessConfig


def cropped_share(geometry: PreprocessConfig, rows: pd.DataFrame) -> float:
    """Share of the images' area that is cropped off, their mean, within 0…1.

    Args:
        geometry: How images are fitted into squares.
        rows: The images.
    """
    if not geometry.crops:
        return 0.0
    # To stretch makes all images alike.
    sizes = (image_sizes(rows) if geometry.fit == "crop" else []) or [(1, 1)]
    plans = [plan(size, geometry) for size in sizes]
    shown = [np.prod(each.map_shape) / (each.down.scaled * each.across.scaled) for each in plans]
    return float(1 - np.mean(shown))


def cropped_defects(
    rows: pd.DataFrame, images: ImageFolder, geometry: PreprocessConfig
) -> dict[str, Any] | None:
    """Measure in the original masks what of the defects lies outside the crop.

    A pixel is outside where its centre is, once the image is resized.

    Args:
        rows: Test images of one category, with the labels of the manifest.
        images: Where the masks are.
        geometry: How images are fitted into squares.

    Returns:
        ``pixel_share`` of all defective pixels that is outside, within 0…1, and ``n_images``
        whose every defective pixel is; ``None`` without a crop or without masks.
    """
    masked = rows[(rows["label"] == "defective") & rows["mask_path"].notna()]
    if not geometry.crops or masked.empty:
        return None
    total = outside = hidden = 0
    for path in masked["mask_path"]:
        mask = images.read_mask(str(path))
        pixels, seen = int(mask.sum()), int(native_mask(mask, geometry).sum())
        total += pixels
        outside += pixels - seen
        hidden += seen == 0
    return {"pixel_share": outside / total if total else None, "n_images": hidden}
