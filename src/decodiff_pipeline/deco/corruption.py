"""Draws the mask and the noise that corrupt training latents (paper, section 3.2).

`DeCoDiffScheduler.deviation` and `add_deviation` make δ and the corrupted latents z_t of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from decodiff_pipeline.deco.device import to_device

if TYPE_CHECKING:
    from decodiff_pipeline.deco.config import CorruptionConfig


def draw_corruption(
    latents: torch.Tensor, config: CorruptionConfig, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw mask and noise for a batch.

    Random patches of a random size are corrupted, most with Gaussian noise, some with patches
    from other positions and images of the batch.

    Args:
        latents: Clean latents z, float (B, C, s, s).
        generator: CPU generator; all random numbers depend on it.

    Returns:
        ``mask`` m (B, 1, s, s), 1 keeps and 0 corrupts, and ``noise`` η (B, C, s, s), both with
        the dtype and device of ``latents``.
    """
    batch, side = latents.shape[0], latents.shape[-1]
    sizes = config.sizes_for(side)
    weights = torch.tensor(list(sizes.values()))
    patch = list(sizes)[int(torch.multinomial(weights, 1, generator=generator))]
    grid = side // patch

    ratios = config.max_mask_ratio * torch.rand(batch, 1, generator=generator)
    # Ranks of random numbers are a random permutation, so exactly a share r of the patches is
    # corrupted.
    ranks = torch.rand(batch, grid * grid, generator=generator).argsort(1).argsort(1)
    kept = (ranks + 0.5 >= ratios * grid * grid).reshape(batch, 1, grid, grid)
    kept = to_device(kept, latents.device, latents.dtype)

    gaussian = _gaussian(latents, config, generator)
    share = config.max_shuffle_ratio * torch.rand(1, generator=generator)
    foreign = torch.rand(batch, 1, grid, grid, generator=generator) < share
    order = torch.randperm(batch * grid * grid, generator=generator)
    order = to_device(order, latents.device)
    shuffled = _unpatch(_patches(latents, patch)[order], latents.shape, patch)
    foreign = to_device(foreign, latents.device)
    noise = torch.where(_enlarge(foreign, patch), shuffled, gaussian)
    return _enlarge(kept, patch), noise


def _gaussian(
    latents: torch.Tensor, config: CorruptionConfig, generator: torch.Generator
) -> torch.Tensor:
    if config.device == "cpu":
        noise = torch.randn(latents.shape, generator=generator)
        return to_device(noise, latents.device, latents.dtype)
    on_device = torch.Generator(latents.device)
    on_device.manual_seed(int(torch.randint(2**62, (), generator=generator)))
    return torch.randn(
        latents.shape, generator=on_device, device=latents.device, dtype=latents.dtype
    )


def _enlarge(grid: torch.Tensor, patch: int) -> torch.Tensor:
    """(B, 1, g, g) → (B, 1, g·p, g·p)."""
    return grid.repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)


def _patches(latents: torch.Tensor, patch: int) -> torch.Tensor:
    """(B, C, g·p, g·p) → (B·g·g, C, p, p)."""
    batch, channels, side, _ = latents.shape
    grid = side // patch
    tiles = latents.reshape(batch, channels, grid, patch, grid, patch)
    return tiles.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, patch, patch)


def _unpatch(tiles: torch.Tensor, shape: torch.Size, patch: int) -> torch.Tensor:
    """(B·g·g, C, p, p) → (B, C, g·p, g·p); the inverse of :func:`_patches`."""
    batch, channels, side, _ = shape
    grid = side // patch
    tiles = tiles.reshape(batch, grid, grid, channels, patch, patch)
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(shape)
