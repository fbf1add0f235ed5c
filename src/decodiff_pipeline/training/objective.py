"""The training objective: predict the deviation that was put into a latent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from decodiff_pipeline.deco.corruption import draw_corruption
from decodiff_pipeline.training.batches import Batch, generator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from decodiff_pipeline.deco.config import CorruptionConfig
    from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler


def deviation_loss(
    unet: nn.Module,
    scheduler: DeCoDiffScheduler,
    batch: Batch,
    corruption: CorruptionConfig,
    random: torch.Generator,
) -> torch.Tensor:
    """Mean squared error on δ over all positions, at uniform t (paper, eq. 7).

    Args:
        batch: Clean latents and categories, on the network's device.
        random: Source of masks, noise and timesteps, on the CPU.

    Returns:
        A float32 scalar.
    """
    latents = batch.latents
    mask, noise = draw_corruption(latents, corruption, random)
    total = scheduler.config.num_train_timesteps
    timesteps = torch.randint(total, (len(latents),), generator=random)
    target = scheduler.deviation(latents, noise, mask, timesteps)
    corrupted = scheduler.add_deviation(latents, target, timesteps)
    predicted = unet(corrupted, timesteps.to(latents.device), batch.category_ids)
    return functional.mse_loss(predicted.float(), target)


@torch.no_grad()
def held_out_loss(
    unet: nn.Module,
    scheduler: DeCoDiffScheduler,
    batches: Sequence[Batch],
    corruption: CorruptionConfig,
) -> float:
    """The objective on images that are not trained on, with the same corruption every time.

    Returns:
        The mean over the images.
    """
    was_training = unet.training
    unet.eval()
    total, count = 0.0, 0
    for number, batch in enumerate(batches):
        random = generator("held-out", number)
        loss = deviation_loss(unet, scheduler, batch, corruption, random)
        total += loss.item() * len(batch.latents)
        count += len(batch.latents)
    unet.train(was_training)
    return total / count
