"""What a centre crop takes away: defects that the model never sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.config import PreprocessConfig


def cropped_share(geometry: PreprocessConfig) -> float:
    """Share of an image's area that is cropped off, within 0…1; 0 without a crop."""
    return 1 - (geometry.image_size / geometry.resize) ** 2


def cropped_defects(
    rows: pd.DataFrame, images: ImageFolder, geometry: PreprocessConfig
) -> dict[str, Any] | None:
    """Measure in the original masks what of the defects lies outside the crop.

    A pixel is outside where its centre is, once the image is resized.

    Args:
        rows: Test images of one category, with the labels of the manifest.
        images: Where the masks are.
        geometry: Resize and crop of the model's input.

    Returns:
        ``pixel_share`` of all defective pixels that is outside, within 0…1, and ``n_images``
        whose every defective pixel is; ``None`` without a crop or without masks.
    """
    masked = rows[(rows["label"] == "defective") & rows["mask_path"].notna()]
    if geometry.resize == geometry.image_size or masked.empty:
        return None
    total = outside = hidden = 0
    for path in masked["mask_path"]:
        mask = images.read_mask(str(path))
        ys, xs = (_inside(length, geometry) for length in mask.shape)
        pixels, seen = int(mask.sum()), int(mask[np.ix_(ys, xs)].sum())
        total += pixels
        outside += pixels - seen
        hidden += seen == 0
    return {"pixel_share": outside / total if total else None, "n_images": hidden}


def _inside(length: int, geometry: PreprocessConfig) -> np.ndarray:
    """bool (length,): which pixels along one side have their centre in the crop."""
    centres = (np.arange(length) + 0.5) * geometry.resize / length
    return (centres >= geometry.margin) & (centres < geometry.margin + geometry.image_size)
