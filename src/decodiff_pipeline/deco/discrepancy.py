"""Anomaly maps and image scores from pixel and latent discrepancies (paper, section 3.4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from scipy import ndimage

from decodiff_pipeline.deco.regions import latent_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decodiff_pipeline.deco.config import DiscrepancyConfig, ImageScoreConfig

Maps = TypeVar("Maps", np.ndarray, torch.Tensor)
SMALLEST = 1e-6  # lower bound of denominators


@dataclass
class Discrepancies:
    """The unclipped discrepancies of N squares.

    Attributes:
        pixel: float32 (N, H, W).
        latent: float32 (N, h, w).
        reconstructed: dec(ẑ_0), float32 (N, 3, H, W), about within [-1, 1].
    """

    pixel: torch.Tensor
    latent: torch.Tensor
    reconstructed: torch.Tensor


def pixel_discrepancy(reconstructed: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
    """Maximum absolute difference over the colour channels.

    Args:
        reconstructed: dec(ẑ_0), float (N, 3, H, W) within about [-1, 1].
        encoded: dec(z), the decoded latents of the input, or the input itself; the same shape.

    Returns:
        float32 (N, H, W), not clipped.
    """
    return (reconstructed - encoded).abs().amax(1).float()


def latent_discrepancy(
    corrected: torch.Tensor, latents: torch.Tensor, reduction: str = "mean"
) -> torch.Tensor:
    """Difference over the latent channels, ``mean`` absolute or ``rms``.

    Args:
        corrected: ẑ_0, float (N, C, h, w).
        latents: z, the same shape.

    Returns:
        float32 (N, h, w), not clipped.
    """
    difference = (corrected - latents).float()
    if reduction == "rms":
        return difference.square().mean(1).sqrt()
    return difference.abs().mean(1)


def smoothed(
    pixel: torch.Tensor,
    latent: torch.Tensor,
    config: DiscrepancyConfig,
    inside: np.ndarray | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clip and smooth the two discrepancies, and resize both to (H, W).

    Source: the paper's section 3.4 and its released code.

    Args:
        pixel: Float (N, H, W), as :func:`pixel_discrepancy` returns it.
        latent: Float (N, h, w), as :func:`latent_discrepancy` returns it; H/h = W/w.
        inside: Pixels inside of the regions, bool (N, H, W). The others are ignored by the
            smoothing and are 0 in both maps. A latent cell is inside if all its pixels are.

    Returns:
        Pixel and latent map, each float32 (N, H, W) within 0…1.
    """
    pixel_map = (pixel / config.pixel_limit).clamp(0, 1)
    latent_map = (latent / config.latent_limit).clamp(0, 1)
    size = pixel.shape[1:]
    if inside is None:
        return (
            _filtered(pixel_map, config.pixel_sigma, size),
            _filtered(latent_map, config.latent_sigma, size),
        )
    pixels, cells = (
        torch.from_numpy(mask.astype(np.float32)).to(pixel.device)
        for mask in (inside, latent_cells(inside, latent.shape[-1]))
    )
    return (
        pixels * _filtered_inside(pixel_map, pixels, config.pixel_sigma, size),
        pixels * _filtered_inside(latent_map, cells, config.latent_sigma, size),
    )


def _filtered_inside(
    maps: torch.Tensor, weights: torch.Tensor, sigma: float, size: Sequence[int]
) -> torch.Tensor:
    """As `_filtered`, but the weighted mean; 0 if there is no weight within the filter."""
    total = _filtered(weights, sigma, size).clamp_min(SMALLEST)
    return (_filtered(maps * weights, sigma, size) / total).clamp(max=1)


def _filtered(maps: torch.Tensor, sigma: float, size: Sequence[int]) -> torch.Tensor:
    """Gaussian filter, then bilinear interpolation to a size: float32 (N, h, w) → (N, H, W)."""
    down, across = (
        _filter_matrix(before, after, sigma).to(maps.device)
        for before, after in zip(maps.shape[1:], size, strict=True)
    )
    return down @ (maps.float() @ across.T)


@lru_cache(maxsize=16)
def _filter_matrix(before: int, after: int, sigma: float) -> torch.Tensor:
    """The matrix that :func:`_filtered` applies along one side, float32 (after, before)."""
    matrix = ndimage.gaussian_filter(np.eye(before), (sigma, 0))
    # mode="mirror" with grid_mode equals skimage's resize, which the released code uses.
    matrix = ndimage.zoom(matrix, (after / before, 1), order=1, mode="mirror", grid_mode=True)
    return torch.from_numpy(matrix).float()


def anomaly_maps(pixel: Maps, latent: Maps, config: DiscrepancyConfig) -> Maps:
    """Fuse the two maps (paper, section 3.4: the geometric mean).

    With w the weight of the pixel map: ``pixel**w · latent**(1-w)``, or, arithmetic,
    ``w · pixel + (1-w) · latent``. The paper has the geometric mean with w = 1/2.

    Args:
        pixel: Float (N, H, W) within 0…1.
        latent: The same.

    Returns:
        float32 (N, H, W) within 0…1.
    """
    if config.fusion == "pixel":
        return pixel
    if config.fusion == "latent":
        return latent
    weight = config.pixel_weight
    if config.fusion == "arithmetic":
        return weight * pixel + (1 - weight) * latent
    return pixel**weight * latent ** (1 - weight)


def scored_map(maps: Maps, pixel: Maps, latent: Maps, config: ImageScoreConfig) -> Maps:
    """The fused, pixel or latent map, from which the image score is computed."""
    return {"map": maps, "pixel": pixel, "latent": latent}[config.score_from]


def square_maps(
    pixel: torch.Tensor,
    latent: torch.Tensor,
    config: DiscrepancyConfig,
    scores: Sequence[ImageScoreConfig],
    inside: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Anomaly maps of M squares, and the maps that their scores are computed from.

    Args:
        pixel: Pixel discrepancies, float (M, H, W).
        latent: Latent discrepancies, float (M, h, w).
        scores: Image score of each square's image.
        inside: Pixels inside of the regions, bool (M, H, W); ``None`` for all.

    Returns:
        Both float32 (M, H, W) within 0…1.
    """
    pixel, latent = smoothed(pixel, latent, config, inside)
    maps = anomaly_maps(pixel, latent, config)
    scored = [scored_map(*parts) for parts in zip(maps, pixel, latent, scores, strict=True)]
    return maps.cpu().numpy(), torch.stack(scored).cpu().numpy()


def image_scores(
    maps: np.ndarray,
    config: ImageScoreConfig,
    square_pixels: int | None = None,
    inside: np.ndarray | None = None,
) -> np.ndarray:
    """Image scores: the maximum of each map, or the mean of its largest values.

    The values are normalised first, see :func:`levelled`.

    Args:
        maps: Float (N, H, W) within 0…1.
        square_pixels: Number of pixels of a model input, to which ``top_share`` and
            ``level_sigma`` are relative, so that the size of a stitched image has no influence;
            by default the number of pixels of a map.
        inside: Pixels inside of the regions, bool (N, H, W); maps are 0 outside. If there are
            fewer than ``square_pixels``, ``top_share`` is relative to their number.

    Returns:
        float32 (N,) within 0…1; 0 for an empty region.
    """
    square_pixels = square_pixels or maps[0].size
    if inside is not None:
        values = levelled(maps, config, square_pixels, inside)
        scores = [
            _largest(one[None, mask], config.top_share * min(square_pixels, mask.sum()))
            for one, mask in zip(values, inside, strict=True)
        ]
        return np.concatenate(scores)
    values = levelled(maps, config, square_pixels).reshape(len(maps), -1)
    return _largest(values, config.top_share * square_pixels)


def _largest(values: np.ndarray, count: float) -> np.ndarray:
    """Mean of the ``count`` largest values of each row: float (N, P) → float32 (N,)."""
    if not values.shape[1]:
        return np.zeros(len(values), np.float32)
    number = min(max(1, round(count)), values.shape[1])
    return np.partition(values, -number, axis=1)[:, -number:].mean(1, dtype=np.float32)


def levelled(
    maps: np.ndarray,
    config: ImageScoreConfig,
    square_pixels: int,
    inside: np.ndarray | None = None,
) -> np.ndarray:
    """Normalise maps by their local level: v / (v + level**power). Not in the paper.

    Args:
        maps: Float (N, H, W) within 0…1.
        square_pixels, inside: See :func:`image_scores`.

    Returns:
        Float (N, H, W) within 0…1; the given maps if ``level_power`` is 0.
    """
    if config.level_power == 0:
        return maps
    sigma = config.level_sigma * math.sqrt(square_pixels)
    level = _level(maps, sigma)
    if inside is not None:  # maps are 0 outside, so this is the mean over the pixels inside
        level = level / np.maximum(_level(inside.astype(np.float32), sigma), SMALLEST)
    level = np.maximum(level, SMALLEST) ** config.level_power
    return maps / (maps + level)


def _level(maps: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean around each pixel; the mean of the map if ``sigma`` is 0."""
    if sigma == 0:
        return maps.mean((1, 2), keepdims=True, dtype=np.float32)
    # Two box filters with the same variance; a Gaussian filter takes 30 times as long.
    side = max(1, round(sigma * math.sqrt(6)))
    return ndimage.uniform_filter(ndimage.uniform_filter(maps, (1, side, side)), (1, side, side))
