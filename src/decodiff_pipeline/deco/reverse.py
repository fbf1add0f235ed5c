"""The reverse process: from a latent to its correction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
    from decodiff_pipeline.deco.unet import DeCoDiffUNet


@torch.no_grad()
def reverse_process(
    unet: DeCoDiffUNet,
    scheduler: DeCoDiffScheduler,
    sample: torch.Tensor,
    category_ids: torch.Tensor,
) -> torch.Tensor:
    """Walk the scheduler's timesteps from a latent to its correction (paper, Algorithm 2).

    Args:
        unet: The network, in eval mode.
        scheduler: Its timesteps are set.
        sample: Standardised latents as the network was trained on, float32 (N, C, h, w), on its
            device.
        category_ids: int64 (N,), on the same device.

    Returns:
        ẑ_0, float32 (N, C, h, w), standardised too.
    """
    for timestep in scheduler.timesteps:
        deviation = unet(sample.to(unet.dtype), timestep, category_ids).float()
        sample = scheduler.step(deviation, timestep, sample)[0]
    return sample
