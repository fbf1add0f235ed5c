"""The training objective: predict the deviation that was added to a latent (paper, eq. 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from decodiff_pipeline.compute.group import ALONE, Group
from decodiff_pipeline.deco.corruption import draw_corruption
from decodiff_pipeline.deco.device import to_device
from decodiff_pipeline.training.batches import Batch, generator

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn

    from decodiff_pipeline.deco.config import CorruptionConfig
    from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
    from decodiff_pipeline.training.config import TrainingConfig
    from decodiff_pipeline.training.state import TrainingState


def accumulate_gradients(
    state: TrainingState,
    scheduler: DeCoDiffScheduler,
    batches: Iterable[tuple[int, Batch]],
    config: TrainingConfig,
) -> tuple[torch.Tensor, int]:
    """Add up the gradients of the ``config.accumulation`` batches of an optimiser step.

    Args:
        batches: Number and content of each batch, on the network's device. The number seeds
            masks, noise, timesteps and dropout.

    Returns:
        This process's part of the mean loss, float64 (), and the number of images.
    """
    mean, images = torch.zeros((), dtype=state.loss_dtype, device=state.device), 0
    for number, batch in batches:
        random = generator("corruption", config.seed, number)
        last = (number + 1) % config.accumulation == 0
        loss = _add_batch(state, scheduler, batch, config.corruption, random, last=last)
        mean += loss / config.accumulation
        images += len(batch.latents)
    return mean, images


def _add_batch(
    state: TrainingState,
    scheduler: DeCoDiffScheduler,
    batch: Batch,
    corruption: CorruptionConfig,
    random: torch.Generator,
    *,
    last: bool,
) -> torch.Tensor:
    # Dropout draws from torch's global generator. On the CPU each process draws for the whole
    # batch, so all processes need the same seed.
    rank = 0 if state.device.type == "cpu" else state.group.rank
    torch.manual_seed(random.initial_seed() + rank)

    def loss_of(network: nn.Module, part: slice) -> torch.Tensor:
        return deviation_loss(network, scheduler, batch, corruption, random, part)

    return state.add_gradients(loss_of, len(batch.latents), last=last)


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
        part: The images of the batch that the loss is computed for. Random numbers are drawn for
            the whole batch, and noise patches are taken from all its images.

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
    """Mean of the objective over val images, with the same corruption at each call.

    The processes of a group divide the batches among themselves.
    """
    was_training = unet.training
    unet.eval()
    sums = {}
    for number in range(group.rank, len(batches), group.size):
        random, batch = generator("held-out", number), batches[number]
        loss = deviation_loss(unet, scheduler, batch, corruption, random)
        sums[number] = loss.item() * len(batch.latents)
    unet.train(was_training)
    # Sorted, so that the rounding of the sum does not depend on the number of processes.
    ordered = sorted(item for part in group.gather(list(sums.items())) for item in part)
    return sum(value for _, value in ordered) / sum(len(batch.latents) for batch in batches)
