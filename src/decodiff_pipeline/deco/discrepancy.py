"""Anomaly maps: how far the corrected image lies from the encoded one, in pixels and in latents."""

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
SMALLEST = 1e-6  # of the levels that are divided by


@dataclass
class Discrepancies:
    """The unclipped differences that a map is made of.

    Attributes:
        pixel: float32 (N, H, W).
        latent: float32 (N, h, w).
        reconstructed: dec(ẑ_0), float32 (N, 3, H, W), about within [-1, 1].
    """

    pixel: torch.Tensor
    latent: torch.Tensor
    reconstructed: torch.Tensor


def pixel_discrepancy(reconstructed: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
    """Largest difference over the colour channels.

    Args:
        reconstructed: dec(ẑ_0), float (N, 3, H, W) within about [-1, 1].
        encoded: dec(z), the same for the latents as encoded.

    Returns:
        float32 (N, H, W), not clipped.
    """
    return (reconstructed - encoded).abs().amax(1).float()


def latent_discrepancy(
    corrected: torch.Tensor, latents: torch.Tensor, reduction: str = "mean"
) -> torch.Tensor:
    """Difference over the latent channels.

    Args:
        corrected: ẑ_0, float (N, C, h, w).
        latents: z, the same shape.
        reduction: ``mean`` of the absolute differences, or ``rms``.

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
    """Clip and smooth the two discrepancies, and bring both to the size of the image.

    Source: the paper's section 3.4 and its released code.

    Args:
        pixel: Float (N, H, W), as :func:`pixel_discrepancy` returns it.
        latent: Float (N, h, w), as :func:`latent_discrepancy` returns it; H/h = W/w.
        config: Limits and smoothing.
        inside: The pixels that count, bool (N, H, W). The others have no part in the smoothing,
            and are 0 in both maps; latent cells count with all of their pixels inside.

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
        torch.from_numpy(each.astype(np.float32)).to(pixel.device)
        for each in (inside, latent_cells(inside, latent.shape[-1]))
    )
    return (
        pixels * _filtered_inside(pixel_map, pixels, config.pixel_sigma, size),
        pixels * _filtered_inside(latent_map, cells, config.latent_sigma, size),
    )


def _filtered_inside(
    maps: torch.Tensor, weights: torch.Tensor, sigma: float, size: Sequence[int]
) -> torch.Tensor:
    """As `_filtered`, the weighted mean of what is in reach; 0 where nothing with a weight is."""
    reached = _filtered(weights, sigma, size).clamp_min(SMALLEST)
    return (_filtered(maps * weights, sigma, size) / reached).clamp(max=1)


def _filtered(maps: torch.Tensor, sigma: float, size: Sequence[int]) -> torch.Tensor:
    """Gaussian filter, then bilinear interpolation to a size: float32 (N, h, w) → (N, H, W)."""
    down, across = (
        _filter_matrix(before, after, sigma).to(maps.device)
        for before, after in zip(maps.shape[1:], size, strict=True)
    )
    return down @ (maps.float() @ across.T)


@lru_cache(maxsize=16)
def _filter_matrix(before: int, after: int, sigma: float) -> torch.Tensor:
    """What :func:`_filtered` does along one side, as a matrix: float32 (after, before)."""
    matrix = ndimage.gaussian_filter(np.eye(before), (sigma, 0))
    # mode="mirror" with grid_mode equals skimage's resize, which the published maps were made by.
    matrix = ndimage.zoom(matrix, (after / before, 1), order=1, mode="mirror", grid_mode=True)
    return torch.from_numpy(matrix).float()


def anomaly_maps(pixel: Maps, latent: Maps, config: DiscrepancyConfig) -> Maps:
    """Combine the two maps (paper, section 3.4: the geometric mean).

    With w the weight of the pixel map: ``pixel**w · latent**(1-w)``, or, arithmetic,
    ``w · pixel + (1-w) · latent``. At w = 1/2 these are the paper's.

    Args:
        pixel: Float (N, H, W) within 0…1.
        latent: The same.
        config: Its ``fusion`` and ``pixel_weight`` decide.

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
    """That one of the three that the image score is taken from.

    Args:
        maps: As :func:`anomaly_maps` returns them.
        pixel: As :func:`smoothed` returns it.
        latent: The same.
        config: Its ``score_from`` decides.
    """
    return {"map": maps, "pixel": pixel, "latent": latent}[config.score_from]


def image_scores(
    maps: np.ndarray,
    config: ImageScoreConfig,
    square_pixels: int | None = None,
    inside: np.ndarray | None = None,
) -> np.ndarray:
    """One score per image: the maximum of its map, or the mean of its largest values.

    The values are compared with their level first, see :func:`levelled`.

    Args:
        maps: Float (N, H, W) within 0…1.
        config: How to score.
        square_pixels: The pixels of a square that the model sees, which ``top_share`` and
            ``level_sigma`` are shares of; by default those of a map. A defect does not weigh less
            in a larger image then.
        inside: The pixels that count, bool (N, H, W), in maps that are 0 elsewhere. Where they are
            fewer than those of a square, ``top_share`` is a share of them.

    Returns:
        float32 (N,) within 0…1; 0 where no pixel counts.
    """
    square_pixels = square_pixels or maps[0].size
    if inside is not None:
        values = levelled(maps, config, square_pixels, inside)
        scores = [
            _largest(own[None, where], config.top_share * min(square_pixels, where.sum()))
            for own, where in zip(values, inside, strict=True)
        ]
        return np.concatenate(scores)
    values = levelled(maps, config, square_pixels).reshape(len(maps), -1)
    return _largest(values, config.top_share * square_pixels)


def _largest(values: np.ndarray, count: float) -> np.ndarray:
    """Mean of about so many of the largest values of each row: float (N, P) → float32 (N,)."""
    if not values.shape[1]:
        return np.zeros(len(values), np.float32)
    most = min(max(1, round(count)), values.shape[1])
    return np.partition(values, -most, axis=1)[:, -most:].mean(1, dtype=np.float32)


def levelled(
    maps: np.ndarray,
    config: ImageScoreConfig,
    square_pixels: int,
    inside: np.ndarray | None = None,
) -> np.ndarray:
    """Maps of v / (v + level**power), in the order of v / level**power but within 0…1.

    Not in the paper.

    Args:
        maps: Float (N, H, W) within 0…1.
        config: Its ``level_power``, 0 for the maps as they are, and ``level_sigma``.
        square_pixels: See :func:`image_scores`.
        inside: The same.

    Returns:
        Float (N, H, W) within 0…1.
    """
    if config.level_power == 0:
        return maps
    sigma = config.level_sigma * math.sqrt(square_pixels)
    level = _level(maps, sigma)
    if inside is not None:  # maps are 0 outside, so this leaves the mean of what counts
        level = level / np.maximum(_level(inside.astype(np.float32), sigma), SMALLEST)
    level = np.maximum(level, SMALLEST) ** config.level_power
    return maps / (maps + level)


def _level(maps: np.ndarray, sigma: float) -> np.ndarray:
    """The mean around each pixel, or of the whole map where ``sigma`` is 0."""
    if sigma == 0:
        return maps.mean((1, 2), keepdims=True, dtype=np.float32)
    # Two box filters of this side have that variance; a Gaussian so wide takes 30 times as long.
    side = max(1, round(sigma * math.sqrt(6)))
    return ndimage.uniform_filter(ndimage.uniform_filter(maps, (1, side, side)), (1, side, side))
