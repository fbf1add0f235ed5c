"""How faithfully an autoencoder reproduces images, and how near its latents are to another's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from decodiff_pipeline.deco.autoencoder import decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from decodiff_pipeline.deco.autoencoder import Autoencoder


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


def reconstruction_report(
    autoencoder: Autoencoder,
    batches: Iterable[torch.Tensor],
    *,
    teacher: Autoencoder | None = None,
) -> dict[str, Any]:
    """Encodes and decodes images and measures what was lost.

    Args:
        autoencoder: In eval mode.
        batches: Float images (N, 3, H, W) within [-1, 1], H and W multiples of 8.
        teacher: Autoencoder of the same latent space, to compare latents and quality with.

    Returns:
        ``images`` (count), ``psnr`` (mean over images, dB), ``psnr_min``, ``psnr_p05`` (5th
        percentile), ``latent_std``; with a teacher also ``teacher_psnr``, ``latent_mse``,
        ``latent_correlation`` (Pearson's, over all values). None where there were no images.
    """
    values, teacher_values, moments = [], [], np.zeros(6)
    for images in batches:
        latents, _ = encode(autoencoder, images)
        values.append(psnr(images, decode(autoencoder, latents)))
        target = latents
        if teacher is not None:
            target, _ = encode(teacher, images)
            teacher_values.append(psnr(images, decode(teacher, target)))
        moments += _moments(latents, target)
    if not values:
        return {"images": 0, "psnr": None}
    report = _quantiles(np.concatenate(values)) | {"latent_std": _deviation(moments)}
    if teacher is not None:
        report["teacher_psnr"] = round(float(np.concatenate(teacher_values).mean()), 3)
        report |= _agreement(moments)
    return report


def _quantiles(values: NDArray[np.float64]) -> dict[str, Any]:
    return {
        "images": len(values),
        "psnr": round(float(values.mean()), 3),
        "psnr_min": round(float(values.min()), 3),
        "psnr_p05": round(float(np.quantile(values, 0.05)), 3),
    }


def _moments(first: torch.Tensor, second: torch.Tensor) -> NDArray[np.float64]:
    """Count and raw moments (n, Σx, Σy, Σxx, Σyy, Σxy), which add up over batches."""
    x, y = first.double().flatten(), second.double().flatten()
    sums = [x.sum(), y.sum(), x @ x, y @ y, x @ y]
    return np.array([x.numel(), *(float(value) for value in sums)])


def _deviation(moments: NDArray[np.float64]) -> float:
    count, x, _, xx, _, _ = moments
    return round(float(np.sqrt(xx / count - (x / count) ** 2)), 4)


def _agreement(moments: NDArray[np.float64]) -> dict[str, float]:
    count, x, y, xx, yy, xy = moments
    covariance = xy / count - x * y / count**2
    spread = np.sqrt((xx / count - (x / count) ** 2) * (yy / count - (y / count) ** 2))
    return {
        "latent_mse": round(float((xx - 2 * xy + yy) / count), 5),
        "latent_correlation": round(float(covariance / spread), 5),
    }
