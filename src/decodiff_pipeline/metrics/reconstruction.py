"""What a reconstruction keeps of an image: detail and colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from decodiff_pipeline.metrics.image_quality import LUMA

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COLOURFUL = 0.99  # quantile of an image's pixels: its most colourful hundredth
MIN_COLOUR = 20  # grey levels of 255 between the channels there, from which on an image has colour


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
