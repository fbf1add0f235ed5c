"""Small models with random weights, for tests that need no trained one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderTiny

from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.deco.regions import read_regions
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.deco.unet import DeCoDiffUNet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from decodiff_pipeline.deco.regions import Region


def narrow_autoencoder(seed: int = 0, **options: Any) -> AutoencoderTiny:
    """An ``AutoencoderTiny`` of 8 channels, whose latents have an eighth of the resolution."""
    torch.manual_seed(seed)
    narrow, single = (8, 8, 8, 8), (1, 1, 1, 1)
    return AutoencoderTiny(
        encoder_block_out_channels=narrow,
        decoder_block_out_channels=narrow,
        num_encoder_blocks=single,
        num_decoder_blocks=single,
        **options,
    ).eval()


def wave_latents(count: int, side: int = 8) -> torch.Tensor:
    """Latents of smooth waves, no two alike, float32 (count, 4, side, side)."""
    grid = torch.arange(float(side))
    phase = torch.arange(count).reshape(-1, 1, 1, 1) / 3
    mean = torch.sin(grid.reshape(1, 1, side, 1) + phase) + torch.cos(grid).reshape(1, 1, 1, side)
    return mean.expand(-1, 4, -1, -1).contiguous()


class StandInModel:
    """What scoring reads of a pipeline beside its output, for models whose output is made up."""

    config: Mapping[str, Any] = {"num_inference_steps": 1, "discrepancy": {}}
    unet = vae = torch.nn.Linear(1, 1)
    reference = None

    @property
    def regions(self) -> dict[str, Region]:
        return read_regions(self.config)

    def set_progress_bar_config(self, **_: Any) -> None:
        """There is no bar."""


def small_pipeline(
    categories: Sequence[str] = ("mono", "poly"), *, resize: int = 32
) -> DeCoDiffPipeline:
    """A pipeline of 32² pixels and 4² latents with two reverse steps."""
    vae = narrow_autoencoder(scaling_factor=1.0)
    unet = DeCoDiffUNet(
        categories=categories, sample_size=4, base_channels=32, num_heads=2, context_dim=8
    )
    return DeCoDiffPipeline(
        vae,
        unet,
        DeCoDiffScheduler(),
        preprocess={"resize": resize, "image_size": 32},
        num_inference_steps=2,
    )
