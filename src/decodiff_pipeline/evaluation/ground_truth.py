"""Ground truth at the size of the maps or of the images, read when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from decodiff_pipeline.deco.geometry import plan, to_original
from decodiff_pipeline.deco.preprocess import resize_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.evaluation.config import Protocol, Resolution
    from decodiff_pipeline.metrics.exact import Maps


def with_ground_truth(rows: pd.DataFrame) -> pd.DataFrame:
    """The images of which every pixel's truth is known: good ones, and defects with a mask."""
    good = rows["label"] == "good"
    masked = (rows["label"] == "defective") & rows["mask_path"].notna()
    return rows[good | masked]


def mask_by(protocol: Protocol, mask: np.ndarray, geometry: PreprocessConfig) -> np.ndarray:
    """Bring a mask to the size of the maps as a protocol does.

    Args:
        protocol: ``strict``: `deco.preprocess.resize_mask`; ``released``:
            `released_protocol.released_mask`.
        mask: bool (H, W), True on the defect.
        geometry: How images were fitted into squares.

    Returns:
        bool (h, w), as the map.
    """
    return (resize_mask if protocol == "strict" else released_mask)(mask, geometry)


class GroundTruth:
    """Masks of some images, read one at a time, never kept.

    Args:
        rows: Manifest rows, as `with_ground_truth` returns them.
        images: Where the masks are.
        geometry: How images were fitted into squares.
        protocol: How masks are resized; see `mask_by`.
        resolution: ``native`` for masks as they are, but for what the model did not see.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        images: ImageFolder,
        geometry: PreprocessConfig,
        protocol: Protocol = "strict",
        resolution: Resolution = "model",
    ) -> None:
        paths = rows["mask_path"].where(rows["label"] == "defective")
        self._paths = [None if pd.isna(path) else str(path) for path in paths]
        self._images = images
        self._geometry = geometry
        self._protocol = protocol
        self._native = resolution == "native"

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> np.ndarray | None:
        """The mask of an image as bool (h, w), ``None`` for a good one."""
        path = self._paths[index]
        if path is None:
            return None
        mask = self._images.read_mask(path)
        if self._native:
            return native_mask(mask, self._geometry)
        return mask_by(self._protocol, mask, self._geometry)


def image_sizes(rows: pd.DataFrame) -> list[tuple[int, int]]:
    """Width and height of images in pixels, from their manifest rows."""
    return [(int(width), int(height)) for width, height in zip(rows["width"], rows["height"])]


class NativeMaps:
    """Maps brought to the pixels of their images, one at a time, never kept.

    Pixels that the model did not see are cut off, as `native_mask` cuts them off the masks.

    Args:
        maps: Anomaly maps as the model gives them.
        sizes: Width and height of each image in pixels.
        geometry: How images were fitted into squares.
    """

    def __init__(
        self, maps: Maps, sizes: Sequence[tuple[int, int]], geometry: PreprocessConfig
    ) -> None:
        self._maps = maps
        self._sizes = sizes
        self._geometry = geometry

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: int) -> np.ndarray:
        """The map of an image as float32, of that box of its pixels that the model saw."""
        size = self._sizes[index]
        whole = to_original(self._maps[index], size, self._geometry)
        return whole[plan(size, self._geometry).seen]


def native_mask(mask: np.ndarray, geometry: PreprocessConfig) -> np.ndarray:
    """Of a mask, bool (H, W), the box of pixels that the model saw."""
    height, width = mask.shape
    return mask[plan((width, height), geometry).seen]


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


def released_mask(mask: np.ndarray, geometry: PreprocessConfig) -> np.ndarray:
    """Resize a mask (bicubic, as an 8-bit picture), crop it, and keep every pixel above zero.

    Args:
        mask: bool (H, W), True on the defect.
        geometry: How images were fitted into squares.

    Returns:
        bool (h, w), as the map; a defect is up to some pixels larger on each side.
    """
    height, width = mask.shape
    down, across = where = plan((width, height), geometry)
    picture = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    resized = picture.resize((across.scaled, down.scaled), Image.Resampling.BICUBIC)
    return np.asarray(resized)[where.content] > 0
