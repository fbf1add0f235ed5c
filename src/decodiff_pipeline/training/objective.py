"""The training objective: predict the deviation that was put into a latent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from decodiff_pipeline.compute.group import ALONE, Group
from decodiff_pipeline.deco.corruption import draw_corruption
from decodiff_pipeline.deco.device import to_device
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
    part: slice = slice(None),
) -> torch.Tensor:
    """Mean squared error on δ over all positions, at uniform t (paper, eq. 7).

    Args:
        batch: Clean latents and categories, on the network's device.
        random: Source of masks, noise and timesteps, on the CPU.
        part: The images of the batch that the loss is computed for. What is drawn is drawn for the
            whole batch, and patches of all its images serve as noise.

    Returns:
        A float32 scalar.
    """
    latents = batch.latents
    mask, noise = draw_corruption(latents, corruption, random)
    total = scheduler.config.num_train_timesteps
    timesteps = torch.randint(total, (len(latents),), generator=random)
    target = scheduler.deviation(latents, noise, mask, timesteps)
    corrupted = scheduler.add_deviation(latents, target, timesteps)
    steps = to_device(timesteps[part], latents.device)
    predicted = unet(corrupted[part], steps, batch.category_ids[part])
    return functional.mse_loss(predicted.float(), target[part])


@torch.no_grad()
def held_out_loss(
    unet: nn.Module,
    scheduler: DeCoDiffScheduler,
    batches: Sequence[Batch],
    corruption: CorruptionConfig,
    group: Group = ALONE,
) -> float:
    """The objective on images that are not trained on, with the same corruption every time.

    The batches are shared by the processes of a group.

    Returns:
        The mean over the images.
    """
    was_training = unet.training
    unet.eval()
    sums = {}
    for number in range(group.rank, len(batches), group.size):
        random, batch = generator("held-out", number), batches[number]
        loss = deviation_loss(unet, scheduler, batch, corruption, random)
        sums[number] = loss.item() * len(batch.latents)
    unet.train(was_training)
    every = sorted(item for own in group.gather(list(sums.items())) for item in own)
    return sum(value for _, value in every) / sum(len(batch.latents) for batch in batches)
