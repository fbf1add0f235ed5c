"""Quality of reconstructions: PSNR and preserved colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from decodiff_pipeline.metrics.image_quality import LUMA

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COLOURFUL = 0.99  # quantile over the pixels of the difference between the channels
MIN_COLOUR = 20  # grey levels of 255; an image with a smaller difference counts as grey


def psnr(images: torch.Tensor, reconstructions: torch.Tensor) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio of each image, in dB.

    Args:
        images: Float (N, 3, H, W) within [-1, 1].
        reconstructions: Same shape; clamped to [-1, 1] first.

    Returns:
        (N,); infinite for an exact reconstruction.
    """
    error = (images.double() - reconstructions.double().clamp(-1, 1)).square().mean((1, 2, 3))
    return (10 * torch.log10(4 / error)).cpu().numpy()  # the peak is 2, from -1 to 1


def has_colour(images: torch.Tensor, min_colour: int = MIN_COLOUR) -> NDArray[np.bool_]:
    """Whether each image has colour.

    Args:
        images: Float (N, 3, H, W) within [-1, 1].
        min_colour: Minimum difference between the channels, in grey levels of 255, in the most
            colourful hundredth of the pixels.

    Returns:
        (N,).
    """
    span = (images.amax(1) - images.amin(1)).flatten(1).float() * 127.5
    return (torch.quantile(span, COLOURFUL, dim=1) >= min_colour - 1e-3).cpu().numpy()


def saturation_kept(images: torch.Tensor, reconstructions: torch.Tensor) -> NDArray[np.float64]:
    """Preserved colour: Σ⟨c', c⟩ / Σ⟨c, c⟩ over the pixels of each image.

    c is a pixel's colour minus its luma, c' that of the reconstruction. 1: the colour is
    reproduced; 0: it is lost or wrong. Meaningless for images without colour.

    Args:
        images: Float (N, 3, H, W) within [-1, 1].
        reconstructions: Same shape; clamped to [-1, 1] first.

    Returns:
        (N,).
    """
    chroma, kept = (_chroma(one.double().clamp(-1, 1)) for one in (images, reconstructions))
    energy = chroma.square().sum((1, 2, 3)).clamp_min(1e-12)
    return ((kept * chroma).sum((1, 2, 3)) / energy).cpu().numpy()


def _chroma(images: torch.Tensor) -> torch.Tensor:
    luma = torch.tensor(LUMA, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    return images - (images * luma).sum(1, keepdim=True)
