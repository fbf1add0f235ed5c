"""One optimiser step on random latents, against the released network and loop."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.released_network import ReleasedUNet
from benchmarks.timing import side_by_side
from decodiff_pipeline.deco.config import CorruptionConfig
from decodiff_pipeline.deco.device import keep_freed_memory
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.deco.unet import PRESETS, build_unet
from decodiff_pipeline.training.batches import Batch, generator
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.objective import deviation_loss
from decodiff_pipeline.training.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 16
CATEGORIES = 2
PEER = (
    "the released network rebuilt: float32, plain attention, gradient checkpointing in its "
    "transformer blocks, AdamW unfused, no moving average"
)


def run() -> list[dict[str, Any]]:
    """XS at 16² and 32² latents, batch 16."""
    return [
        side_by_side(
            f"train_step_xs_{side}{suffix}",
            partial(our_step, side, bfloat16=bfloat16),
            partial(released_step, side),
            peer_name=PEER,
            images=BATCH,
        )
        for side in (16, 32)
        for suffix, bfloat16 in (("", True), ("_float32", False))
    ]


def our_step(side: int, *, bfloat16: bool) -> Callable[[], None]:
    """A step as the training loop takes it, clipping and moving average included."""
    keep_freed_memory()
    torch.manual_seed(0)
    unet = build_unet("XS", [str(n) for n in range(CATEGORIES)], side, 4, dropout=0.4).train()
    state = TrainingState(unet, TrainingConfig(preset="XS", steps=1, bfloat16=bfloat16))
    scheduler, batch = DeCoDiffScheduler(), _batch(side)

    def step() -> None:
        with state.autocast():
            loss = deviation_loss(unet, scheduler, batch, CorruptionConfig(), generator(0))
        loss.backward()
        state.apply_gradients(1e-4)

    return step


def released_step(side: int) -> Callable[[], None]:
    """The same step on the same batch with the released network."""
    torch.manual_seed(0)
    size = PRESETS["XS"]
    unet = ReleasedUNet(
        CATEGORIES,
        size.base_channels,
        size.num_heads,
        size.context_dim,
        gradient_checkpointing=True,
    ).train()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, weight_decay=1e-4)
    scheduler, batch = DeCoDiffScheduler(), _batch(side)

    def step() -> None:
        loss = deviation_loss(unet, scheduler, batch, CorruptionConfig(), generator(0))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _batch(side: int) -> Batch:
    latents = torch.randn(BATCH, 4, side, side, generator=generator("benchmark"))
    return Batch(latents, torch.arange(BATCH) % CATEGORIES)
