"""From a photograph to the square the model sees, and its mask along with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from decodiff_pipeline.deco.config import PreprocessConfig

HALF = 0.5
EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


def to_square(image: Image.Image, config: PreprocessConfig) -> np.ndarray:
    """Resize an image and crop its centre.

    Args:
        image: Any PIL image; it becomes RGB.
        config: Geometry.

    Returns:
        uint8, (image_size, image_size, 3).
    """
    return crop(resize(image, config), config)


def resize(image: Image.Image, config: PreprocessConfig) -> np.ndarray:
    """The first half of :func:`to_square`: uint8 (resize, resize, 3), before the crop."""
    size = (config.resize, config.resize)
    return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))


def crop(array: np.ndarray, config: PreprocessConfig) -> np.ndarray:
    """The second half of :func:`to_square`: the centre of an array (resize, resize, …)."""
    start, stop = config.margin, config.margin + config.image_size
    return array[start:stop, start:stop]


def to_tensor(squares: Sequence[np.ndarray]) -> torch.Tensor:
    """Stack uint8 squares (H, W, 3) to float32 (N, 3, H, W) within [-1, 1]."""
    import torch

    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """The inverse of :func:`to_tensor`: (N, 3, H, W) within [-1, 1] → uint8 (N, H, W, 3)."""
    import torch

    scaled = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).cpu().numpy()


def resize_mask(mask: np.ndarray, config: PreprocessConfig) -> np.ndarray:
    """Bring a ground-truth mask to the model's input, neither growing nor losing defects.

    The mask is averaged over the area of each new pixel and cut at one half. A region that
    would vanish that way keeps its strongest pixel.

    Args:
        mask: bool (H, W), True on the defect.
        config: Geometry; a region in the cropped-off margin is cropped off.

    Returns:
        bool, (image_size, image_size).
    """
    small = _area_average(mask, config.resize)
    result = small >= HALF
    labels, count = ndimage.label(mask, structure=EIGHT_CONNECTED)
    rows, columns = (_bins(length, config.resize) for length in mask.shape)
    for region, window in enumerate(ndimage.find_objects(labels, count), start=1):
        here = labels[window] == region
        ys, xs = np.nonzero(here)
        ys, xs = rows[ys + window[0].start], columns[xs + window[1].start]
        if not result[ys, xs].any():
            strongest = small[ys, xs].argmax()
            result[ys[strongest], xs[strongest]] = True
    return crop(result, config)


def _area_average(mask: np.ndarray, side: int) -> np.ndarray:
    image = Image.fromarray(mask.astype(np.float32), mode="F")
    return np.asarray(image.resize((side, side), Image.Resampling.BOX))


def _bins(length: int, side: int) -> np.ndarray:
    """Index of the new pixel that holds the centre of each old one."""
    return ((np.arange(length) + 0.5) * side / length).astype(int)
