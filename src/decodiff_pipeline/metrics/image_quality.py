"""What a photograph is like, whatever it shows: light, contrast, sharpness, noise, colour, size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

# A feature and what a person calls it.
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
LONGEST_SIDE = 1024  # pixels; what is larger is reduced first, for the time it takes
SMALLEST_SIDE = 3  # pixels, of the filters
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's "L"
# Zero where the image is linear within 3x3 pixels; noise of variance s² gives 36 s².
IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
COLOURFUL = 0.99  # quantile of an image's pixels: its most colourful hundredth
MIN_COLOUR = 20  # grey levels of 255 between the channels there, from which on an image has colour


def image_quality(image: Image.Image) -> dict[str, float]:
    """Measure an image.

    Args:
        image: Grey or colour, 8 bits a channel.

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


def psnr(images: torch.Tensor, reconstructions: torch.Tensor) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio of each image, in dB.

    Args:
        images: Float (N, 3, H, W) within [-1, 1].
        reconstructions: Same shape; clamped to [-1, 1] first.

    Returns:
        (N,); infinite where an image is reproduced exactly.
    """
    error = (images.double() - reconstructions.double().clamp(-1, 1)).square().mean((1, 2, 3))
    return (10 * torch.log10(4 / error)).cpu().numpy()  # the peak is 2, from -1 to 1


def has_colour(images: torch.Tensor, min_colour: int = MIN_COLOUR) -> NDArray[np.bool_]:
    """Whether the channels of each image differ by ``min_colour`` grey levels of 255 somewhere.

    Args:
        images: Float (N, 3, H, W) within [-1, 1].
        min_colour: In the most colourful hundredth of the pixels.

    Returns:
        (N,).
    """
    span = (images.amax(1) - images.amin(1)).flatten(1).float() * 127.5
    return (torch.quantile(span, COLOURFUL, dim=1) >= min_colour - 1e-3).cpu().numpy()


def saturation_kept(images: torch.Tensor, reconstructions: torch.Tensor) -> NDArray[np.float64]:
    """Σ⟨c', c⟩ / Σ⟨c, c⟩ over the pixels of each image.

    c is a pixel's colour without its luma, c' the same of the reconstruction: 1 where colour is
    reproduced, 0 where it is lost or wrong. Meaningless where an image has no colour.

    Args:
        images: Float (N, 3, H, W) within [-1, 1].
        reconstructions: Same shape; clamped to [-1, 1] first.

    Returns:
        (N,).
    """
    chroma, again = (_chroma(one.double().clamp(-1, 1)) for one in (images, reconstructions))
    own = chroma.square().sum((1, 2, 3)).clamp_min(1e-12)
    return ((again * chroma).sum((1, 2, 3)) / own).cpu().numpy()


def _chroma(images: torch.Tensor) -> torch.Tensor:
    luma = torch.tensor(LUMA, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    return images - (images * luma).sum(1, keepdim=True)
