"""What this machine can train: the size of the network, and the time of a step."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import torch

from decodiff_pipeline.deco.autoencoder import load_autoencoder, reduction
from decodiff_pipeline.deco.device import resolve_device
from decodiff_pipeline.deco.memory import keep_freed_memory
from decodiff_pipeline.deco.precision import resolve_bfloat16
from decodiff_pipeline.deco.unet import build_unet
from decodiff_pipeline.recommend.choices import Choice
from decodiff_pipeline.visibility.fidelity import busy_seconds

if TYPE_CHECKING:
    from decodiff_pipeline.deco.weights import AutoencoderConfig
    from decodiff_pipeline.training.config import TrainingConfig

STEPS = 4  # timed; the first is not counted
ON_A_GPU, ON_A_PROCESSOR = "S", "nano"


def choose_preset() -> Choice:
    """The size of the network by the device."""
    if torch.cuda.is_available():
        return Choice(ON_A_GPU, f"this machine has a GPU, {torch.cuda.get_device_name()}")
    return Choice(ON_A_PROCESSOR, "this machine has no GPU")


def seconds_per_step(
    preset: str, image_size: int, autoencoder: AutoencoderConfig, training: TrainingConfig
) -> float:
    """Median time of an optimiser step on random latents, after a first one.

    Raises:
        ConfigurationError: The autoencoder's weights cannot be had.
    """
    keep_freed_memory()
    device = resolve_device()
    model = load_autoencoder(autoencoder)
    channels, side = model.config.latent_channels, image_size // reduction(model)
    unet = build_unet(preset, ["any"], side, channels, training.dropout).to(device).train()
    optimiser = torch.optim.AdamW(unet.parameters(), lr=training.learning_rate)
    latents = torch.randn(training.batch_size, channels, side, side, device=device)
    numbers = torch.zeros(training.batch_size, dtype=torch.long, device=device)
    low = resolve_bfloat16(training.bfloat16, device)
    threads = torch.get_num_threads()

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=low):
            loss = unet(latents, numbers, numbers).float().square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    try:
        torch.set_num_threads(training.threads or threads)
        return median([busy_seconds(step) for _ in range(STEPS)][1:])
    finally:
        torch.set_num_threads(threads)
