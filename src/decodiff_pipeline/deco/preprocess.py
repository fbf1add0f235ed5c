"""Converts images to model inputs, and masks to the size of the maps."""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy import ndimage

from decodiff_pipeline.deco.geometry import HALF, plan, resize_and_pad, square, squares

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import torch

    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.deco.geometry import Axis

EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


def to_square(image: Image.Image, config: PreprocessConfig) -> np.ndarray:
    """The first square of an image, uint8 (image_size, image_size, 3)."""
    return square(resize_and_pad(image, config), image.size, config)


def to_tensor(squares: Sequence[np.ndarray]) -> torch.Tensor:
    """Stack uint8 squares (H, W, 3) to float32 (N, 3, H, W) within [-1, 1]."""
    import torch

    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 127.5 - 1


def square_batches(
    images: Iterable[Image.Image], config: PreprocessConfig, size: int
) -> Iterator[torch.Tensor]:
    """The squares of images in batches of at most ``size``, as :func:`to_tensor` returns them."""
    remaining = chain.from_iterable(squares(image, config) for image in images)
    while batch := list(islice(remaining, size)):
        yield to_tensor(batch)


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """The inverse of :func:`to_tensor`: (N, 3, H, W) within [-1, 1] → uint8 (N, H, W, 3)."""
    import torch

    scaled = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).cpu().numpy()


def resize_mask(mask: np.ndarray, config: PreprocessConfig) -> np.ndarray:
    """Resize a ground-truth mask to the size of the map without growing or losing defects.

    The mask is resized by area averaging and thresholded at one half. A region that would vanish
    keeps the pixel with the largest average.

    Args:
        mask: bool (H, W), True on the defect, of the image's size.

    Returns:
        bool (h, w), the size of the map.
    """
    down, across = layout = plan(mask.shape[::-1], config)
    picture = Image.fromarray(mask.astype(np.float32), mode="F")
    small = np.asarray(picture.resize((across.scaled, down.scaled), Image.Resampling.BOX))
    result = small >= HALF
    labels, count = ndimage.label(mask, structure=EIGHT_CONNECTED)
    rows, columns = (_bins(axis) for axis in layout)
    for region, window in enumerate(ndimage.find_objects(labels, count), start=1):
        here = labels[window] == region
        ys, xs = np.nonzero(here)
        ys, xs = rows[ys + window[0].start], columns[xs + window[1].start]
        if not result[ys, xs].any():
            strongest = small[ys, xs].argmax()
            result[ys[strongest], xs[strongest]] = True
    return result[layout.content]


def _bins(axis: Axis) -> np.ndarray:
    """Index of the resized pixel that contains the centre of each original pixel."""
    return ((np.arange(axis.length) + HALF) * axis.scaled / axis.length).astype(int)
