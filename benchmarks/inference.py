"""From latents to corrected latents, and from pixels to maps, against the released way."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from benchmarks.released_network import ReleasedUNet
from benchmarks.timing import side_by_side
from decodiff_pipeline.deco.autoencoder import decode, encode
from decodiff_pipeline.deco.config import DiscrepancyConfig
from decodiff_pipeline.deco.discrepancy import (
    anomaly_maps,
    latent_discrepancy,
    pixel_discrepancy,
    smoothed,
)
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.deco.released_network import released_tensors
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.deco.unet import PRESETS, build_unet
from decodiff_pipeline.training.batches import generator

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from decodiff_pipeline.deco.autoencoder import Autoencoder
    from decodiff_pipeline.deco.unet import DeCoDiffUNet

# Images at once, by size of the autoencoder: Stable Diffusion's takes a second for each.
BATCHES = {"": 8, "_sd_vae": 1}
STEPS = 5
CATEGORIES = ("a", "b")
NETWORK = "the released network rebuilt, same weights: float32, plain attention"
CHAIN = f"{NETWORK}; autoencoder in float32, two decodes"


def run() -> list[dict[str, Any]]:
    """XS at 32² latents and 256² pixels, 5 reverse steps."""
    precisions = (("", True), ("_float32", False))
    network = [
        side_by_side(
            f"infer_network_xs{suffix}",
            partial(our_correction, bfloat16=bfloat16),
            released_correction,
            peer_name=NETWORK,
            images=BATCHES[""],
        )
        for suffix, bfloat16 in precisions
    ]
    pixels = [
        side_by_side(
            f"infer_pixels_to_map_xs{size}{suffix}",
            partial(our_maps, size, bfloat16=bfloat16),
            partial(released_maps, size),
            peer_name=CHAIN,
            images=BATCHES[size],
        )
        for size in BATCHES
        for suffix, bfloat16 in precisions
    ]
    return network + pixels


def our_correction(*, bfloat16: bool) -> Callable[[], np.ndarray]:
    """The reverse process of this project's pipeline."""
    model = _pipeline(autoencoder(""), bfloat16=bfloat16)
    latents, ids = _latents(), _ids(BATCHES[""])
    return lambda: model.correct(latents, ids).numpy()


def released_correction() -> Callable[[], np.ndarray]:
    """The reverse process with the released network."""
    unet, latents = _released(), _latents()
    return lambda: _corrected(unet, latents).numpy()


def our_maps(size: str, *, bfloat16: bool) -> Callable[[], np.ndarray]:
    """This project's pipeline, from pixels to maps."""
    model = _pipeline(autoencoder(size), bfloat16=bfloat16)
    model.set_progress_bar_config(disable=True)
    images = _images(size)
    categories = [CATEGORIES[number] for number in _ids(len(images))]
    return lambda: model(images, categories).anomaly_maps


def released_maps(size: str) -> Callable[[], np.ndarray]:
    """Encode, correct, decode both latents one after the other, compare."""
    model, unet, images, config = autoencoder(size), _released(), _images(size), DiscrepancyConfig()

    def score() -> np.ndarray:
        latents, _ = encode(model, images)
        corrected = _corrected(unet, latents)
        pixel = pixel_discrepancy(decode(model, corrected), decode(model, latents))
        latent = latent_discrepancy(corrected, latents)
        return anomaly_maps(*smoothed(pixel, latent, config), config)

    return score


def autoencoder(size: str) -> Autoencoder:
    """One of TAESD's size, or with ``_sd_vae`` of Stable Diffusion's; random weights."""
    torch.manual_seed(0)
    if not size:
        return AutoencoderTiny().eval().requires_grad_(False)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
    )
    return model.eval().requires_grad_(False)


def _network() -> DeCoDiffUNet:
    torch.manual_seed(0)
    return build_unet("XS", CATEGORIES, 32, 4, dropout=0.4).eval().requires_grad_(False)


def _pipeline(vae: Autoencoder, *, bfloat16: bool) -> DeCoDiffPipeline:
    return DeCoDiffPipeline(
        vae, _network(), DeCoDiffScheduler(), num_inference_steps=STEPS, bfloat16=bfloat16
    ).for_inference()


def _released() -> ReleasedUNet:
    size = PRESETS["XS"]
    unet = ReleasedUNet(len(CATEGORIES), size.base_channels, size.num_heads, size.context_dim)
    unet.load_state_dict(released_tensors(_network()))
    return unet.eval().requires_grad_(False)


@torch.no_grad()
def _corrected(unet: ReleasedUNet, latents: torch.Tensor) -> torch.Tensor:
    scheduler = DeCoDiffScheduler()
    scheduler.set_timesteps(STEPS)
    sample = latents
    for timestep in scheduler.timesteps:
        deviation = unet(sample, timestep.expand(len(sample)), _ids(len(sample)))
        sample = scheduler.step(deviation, timestep, sample).prev_sample
    return sample


def _latents() -> torch.Tensor:
    return torch.randn(BATCHES[""], 4, 32, 32, generator=generator("benchmark"))


def _images(size: str) -> torch.Tensor:
    return torch.rand(BATCHES[size], 3, 256, 256, generator=generator("benchmark")) * 2 - 1


def _ids(count: int) -> torch.Tensor:
    return torch.arange(count) % len(CATEGORIES)
