"""How faithfully an autoencoder reproduces images: noise, colour difference and saturation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from decodiff_pipeline.deco.autoencoder import decode, encode
from decodiff_pipeline.metrics.image_quality import LUMA

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from decodiff_pipeline.deco.autoencoder import Autoencoder

COLOURFUL = 0.99  # quantile of an image's pixels: its most colourful hundredth
MIN_COLOUR = 20  # grey levels of 255 between the channels there, from which on an image has colour
# Linear sRGB to CIE XYZ under D65 (IEC 61966-2-1).
XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
CIE_EPSILON, CIE_KAPPA = 216 / 24389, 24389 / 27


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


def delta_e(images: torch.Tensor, reconstructions: torch.Tensor) -> NDArray[np.float64]:
    """Mean CIE 1976 colour difference of each image; about 2 is just noticeable.

    Args:
        images: Float (N, 3, H, W) within [-1, 1], sRGB.
        reconstructions: Same shape; clamped to [-1, 1] first.

    Returns:
        (N,): the mean over pixels of the Euclidean distance in CIE L*a*b*.
    """
    difference = cie_lab(images) - cie_lab(reconstructions)
    return difference.square().sum(1).sqrt().mean((1, 2)).cpu().numpy()


def cie_lab(images: torch.Tensor) -> torch.Tensor:
    """Converts sRGB to CIE L*a*b* under D65.

    Args:
        images: Float (N, 3, H, W) within [-1, 1]; clamped first.

    Returns:
        Float64 (N, 3, H, W): L* 0 to 100, a* and b* about -128 to 128.
    """
    encoded = (images.double().clamp(-1, 1) + 1) / 2
    linear = torch.where(
        encoded <= 0.04045,  # noqa: PLR2004
        encoded / 12.92,
        ((encoded + 0.055) / 1.055) ** 2.4,
    )
    matrix = torch.tensor(XYZ, dtype=torch.float64, device=images.device)
    xyz = torch.einsum("kc,nchw->nkhw", matrix / matrix.sum(1, keepdim=True), linear)
    root = torch.where(
        xyz > CIE_EPSILON, xyz.clamp_min(1e-12) ** (1 / 3), (CIE_KAPPA * xyz + 16) / 116
    )
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def reconstruction_report(
    autoencoder: Autoencoder, batches: Iterable[torch.Tensor]
) -> dict[str, Any]:
    """Encodes and decodes images and measures what was lost.

    Args:
        autoencoder: In eval mode.
        batches: Float images (N, 3, H, W) within [-1, 1], H and W multiples of 8.

    Returns:
        ``images`` (count), ``psnr`` (mean over images, dB), ``psnr_min``, ``psnr_p05`` (5th
        percentile), ``delta_e`` (mean CIE 1976 colour difference), ``saturation_kept`` (mean over
        the images with colour, None where there is none) and ``latent_std``.

    Raises:
        ValueError: There are no images.
    """
    columns: list[NDArray[Any]] = []
    latents = []
    for images in batches:
        encoded, _ = encode(autoencoder, images)
        again = decode(autoencoder, encoded).cpu()
        kept = np.where(has_colour(images), saturation_kept(images, again), np.nan)
        columns.append(np.stack([psnr(images, again), delta_e(images, again), kept]))
        latents.append((float(encoded.mean()), float(encoded.square().mean()), encoded.numel()))
    if not columns:
        raise ValueError("no image was given")
    values, differences, kept = np.concatenate(columns, axis=1)
    mean, square, counts = np.array(latents).T
    variance = np.average(square, weights=counts) - np.average(mean, weights=counts) ** 2
    return {
        "images": len(values),
        "psnr": round(float(values.mean()), 3),
        "psnr_min": round(float(values.min()), 3),
        "psnr_p05": round(float(np.quantile(values, 0.05)), 3),
        "delta_e": round(float(differences.mean()), 3),
        "saturation_kept": None if np.isnan(kept).all() else round(float(np.nanmean(kept)), 3),
        "latent_std": round(float(np.sqrt(variance)), 4),
    }
