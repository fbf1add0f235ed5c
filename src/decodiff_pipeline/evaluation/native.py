"""Maps and masks in the pixels of the original images, made when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from decodiff_pipeline.deco.geometry import plan, to_original

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd

    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.evaluation.metrics import Maps


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
