"""One optimiser step on random latents, against the same network run the plain way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.attention_processor import AttnProcessor

from benchmarks.timing import side_by_side
from decodiff_pipeline.deco.config import CorruptionConfig
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.deco.unet import build_unet
from decodiff_pipeline.training.batches import Batch, generator
from decodiff_pipeline.training.objective import deviation_loss

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 16
PEER = "same topology, float32, plain attention, gradient checkpointing in transformer blocks"


def run() -> list[dict[str, Any]]:
    """XS at 16² and 32² latents, batch 16."""
    return [
        side_by_side(
            f"train_step_xs_{side}{suffix}",
            _step(side, bfloat16=bfloat16),
            _step(side, bfloat16=False, plain=True),
            peer_name=PEER,
            images=BATCH,
        )
        for side in (16, 32)
        for suffix, bfloat16 in (("", True), ("_float32", False))
    ]


def _step(side: int, *, bfloat16: bool, plain: bool = False) -> Callable[[], None]:
    torch.manual_seed(0)
    unet = build_unet("XS", ["a", "b"], side, 4, dropout=0.4).train()
    if plain:
        unet.unet.set_attn_processor(AttnProcessor())
        unet.unet.enable_gradient_checkpointing()
        # The released code checkpoints its transformer blocks only.
        for module in unet.unet.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = hasattr(module, "transformer_blocks")
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, fused=not plain)
    scheduler = DeCoDiffScheduler()
    batch = Batch(torch.randn(BATCH, 4, side, side), torch.arange(BATCH) % 2)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = deviation_loss(unet, scheduler, batch, CorruptionConfig(), generator(0))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
