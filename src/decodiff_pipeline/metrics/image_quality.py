"""Image quality features: brightness, contrast, sharpness, noise, colour, size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy import ndimage

from decodiff_pipeline.deco.regions import fill

if TYPE_CHECKING:
    from collections.abc import Mapping

    from decodiff_pipeline.deco.regions import Region

# Feature → name for readers.
QUALITY: Mapping[str, str] = {
    "brightness": "brightness",
    "contrast": "contrast",
    "clipped": "share of black and white pixels",
    "sharpness": "sharpness",
    "noise": "noise",
    "saturation": "saturation",
    "red_cast": "red against green",
    "blue_cast": "blue against green",
    "size": "size in pixels",
    "aspect": "width to height",
}
LONGEST_SIDE = 1024  # pixels; larger images are reduced first, to save time
SMALLEST_SIDE = 3  # pixels; the size of the filters
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's "L"
# Zero for an image that is linear within 3x3 pixels; noise of variance s² gives 36 s².
IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


def image_quality(image: Image.Image, region: Region | None = None) -> dict[str, float]:
    """Measure an image.

    Args:
        image: Grey or colour, 8 bits a channel.
        region: What counts; the nearest pixel of it takes the place of each outside.

    Returns:
        For each name of `QUALITY` a number: ``brightness``, ``contrast`` (mean and standard
        deviation of the luma), ``clipped`` and ``saturation`` (mean of HSV's) within 0…1;
        ``sharpness``, the variance of the Laplacian of the luma; ``noise``, its standard
        deviation; ``red_cast`` and ``blue_cast``, differences of channel means within -1…1;
        ``size``, the square root of the number of pixels, and ``aspect``.

    Source: Immerkær, Fast noise variance estimation, CVIU 64 (1996), for ``noise``.
    """
    width, height = image.size
    rgb = _pixels(image)
    if region is not None and region.filled:
        rgb = fill(rgb, region.at(rgb.shape[1::-1]))
    luma = rgb @ np.array(LUMA, np.float32)
    highest, lowest = rgb.max(axis=2), rgb.min(axis=2)
    saturation = np.divide(highest - lowest, highest, out=np.zeros_like(highest), where=highest > 0)
    red, green, blue = rgb.mean(axis=(0, 1), dtype=np.float64)
    inner = (slice(1, -1), slice(1, -1))
    filtered = ndimage.convolve(luma, IMMERKAER)[inner]
    return {
        "brightness": float(luma.mean(dtype=np.float64)),
        "contrast": float(luma.std(dtype=np.float64)),
        "clipped": float(np.mean((luma <= 1 / 255) | (luma >= 254 / 255))),
        "sharpness": float(ndimage.laplace(luma)[inner].var(dtype=np.float64)),
        "noise": float(np.sqrt(np.pi / 2) / 6 * np.abs(filtered).mean(dtype=np.float64)),
        "saturation": float(saturation.mean(dtype=np.float64)),
        "red_cast": float(red - green),
        "blue_cast": float(blue - green),
        "size": float(np.sqrt(width * height)),
        "aspect": width / height,
    }


def _pixels(image: Image.Image) -> np.ndarray:
    """float32 (H, W, 3) within 0…1, each side within 3…1024."""
    width, height = image.size
    scale = min(1.0, LONGEST_SIDE / max(width, height))
    size = (max(SMALLEST_SIDE, round(width * scale)), max(SMALLEST_SIDE, round(height * scale)))
    rgb = image.convert("RGB")
    if size != image.size:
        rgb = rgb.resize(size, Image.Resampling.BOX)
    return np.asarray(rgb, np.float32) / 255
