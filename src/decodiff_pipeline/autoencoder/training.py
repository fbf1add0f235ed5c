"""Trains a small ``AutoencoderTiny`` on images.

The loss is the root mean squared error of each image plus that of its chroma. (The mean PSNR is
unsuitable: its gradient is proportional to the inverse of the error, so that well-reconstructed
images dominate and coloured ones are neglected.) Noise on the latents keeps the decoder smooth. A
penalty on latents beyond the decoder's soft clip at 3 keeps every channel in use. The latents of a
teacher can be an additional target; a detector learns such latents faster.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock

from decodiff_pipeline.autoencoder.crops import RGB, batches, draw_pool, to_float
from decodiff_pipeline.deco.autoencoder import encode, load_autoencoder, reduction
from decodiff_pipeline.deco.device import resolve_bfloat16, resolve_device
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.training.muon import Muon
from decodiff_pipeline.training.schedule import learning_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from decodiff_pipeline.autoencoder.config import AutoencoderTrainingConfig
    from decodiff_pipeline.autoencoder.image_sources import ImageSource
    from decodiff_pipeline.deco.autoencoder import Autoencoder

    Row = dict[str, float]

# Mean squared error (46 dB, images in [-1, 1]) below which the gradient of a flat crop vanishes.
MSE_FLOOR = 1e-4
# Range of the latents' standard deviation. Below, latents are constant up to rounding; above, the
# encoder has diverged.
USABLE = (1e-6, 1e6)
LATENT_RANGE = 3  # end of the decoder's soft clip; a channel beyond it no longer learns
ADAMW_SHARE = 0.5  # of the learning rate
TEACHER_EVERY = 4  # steps; the teacher's encoding of a batch takes longer than a training step


def train_autoencoder(
    sources: Mapping[str, ImageSource],
    config: AutoencoderTrainingConfig,
    *,
    on_log: Callable[[Row], None] | None = None,
) -> tuple[AutoencoderTiny, list[Row]]:
    """Trains an autoencoder; deterministic on one machine.

    Args:
        sources: The images, by the names in ``config.sources``.
        on_log: Called with each row of the log.

    Returns:
        The autoencoder with averaged (EMA) weights, in eval mode on the CPU, with the inverse of
        its latents' standard deviation as ``config.scaling_factor``; and the log: per row
        ``step``, ``loss``, ``psnr`` (dB, over training crops), ``learning_rate``, ``seconds`` and
        ``crops_per_second``.

    Raises:
        ModelError: The loss or the scale of the latents is not finite; ``init_from`` has another
            architecture; or the teacher's latents have another shape.
    """
    device = torch.device(resolve_device(config.device))
    model = initial_autoencoder(config).to(device, memory_format=torch.channels_last)
    average = initial_autoencoder(config).to(device)
    model.encoder.requires_grad_(not config.freeze_encoder)
    optimizers = new_optimizers(model, config)
    teacher = _load_teacher(model, config, device)
    random = torch.Generator(device).manual_seed(config.seed)
    log: list[Row] = []
    window, started = [], time.monotonic()
    for step, images in enumerate(batches(sources, config, device)):
        rate = learning_rate(
            step, config.steps, peak=config.learning_rate, warmup_steps=config.warmup_steps
        )
        for optimizer, share in zip(optimizers, (1.0, ADAMW_SHARE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * share
        target = None
        if teacher is not None and step % TEACHER_EVERY == 0:
            with _autocast(config, device):
                target = encode(teacher, images)[0].float()
        window.append(_train_step(model, optimizers, images, config, random, target))
        _update_average(average, model, min(config.ema_decay, (1 + step) / (10 + step)))
        if (step + 1) % config.log_every == 0 or step + 1 == config.steps:
            log.append(_row(step + 1, window, rate, time.monotonic() - started, config))
            window = []
            if on_log:
                on_log(log[-1])
    average = average.to("cpu").eval()
    if not config.freeze_encoder:
        _set_scaling_factor(average, sources, config)
    return average, log


def initial_autoencoder(config: AutoencoderTrainingConfig) -> AutoencoderTiny:
    """The autoencoder with the weights of ``config.init_from``, in training mode and float32."""
    model = new_autoencoder(config)
    if config.init_from == "scratch":
        return model
    start = load_autoencoder(AutoencoderConfig(config.init_from))
    weights = start.state_dict()
    shapes = {name: weight.shape for name, weight in weights.items()}
    if shapes != {name: weight.shape for name, weight in model.state_dict().items()}:
        raise ModelError(
            f"autoencoder_training.init_from {config.init_from!r} is not an AutoencoderTiny of "
            f"width {config.width}, blocks {list(config.blocks)} and {config.latent_channels} "
            "latent channels; set these to its own, or init_from to scratch"
        )
    model.load_state_dict(weights)
    model.register_to_config(scaling_factor=start.config.scaling_factor)
    return model


def new_autoencoder(config: AutoencoderTrainingConfig) -> AutoencoderTiny:
    """An autoencoder with random weights; leaves the global random state unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = AutoencoderTiny(
            encoder_block_out_channels=(config.width,) * len(config.blocks),
            decoder_block_out_channels=(config.width,) * len(config.blocks),
            num_encoder_blocks=config.blocks,
            num_decoder_blocks=config.blocks[::-1],
            latent_channels=config.latent_channels,
        )
        _initialise(model)
    return model


def _load_teacher(
    model: AutoencoderTiny, config: AutoencoderTrainingConfig, device: torch.device
) -> Autoencoder | None:
    if config.teacher is None:
        return None
    teacher = load_autoencoder(AutoencoderConfig(config.teacher)).to(device)
    theirs = int(teacher.config.latent_channels), reduction(teacher)
    ours = config.latent_channels, reduction(model)
    if theirs != ours:
        raise ModelError(
            f"autoencoder_training.teacher {config.teacher!r} has {theirs[0]} channels at "
            f"1/{theirs[1]} of the size, the fit has {ours[0]} at 1/{ours[1]}; set "
            f"latent_channels and blocks to the teacher's"
        )
    return teacher.to(memory_format=torch.channels_last)


def new_optimizers(
    model: AutoencoderTiny, config: AutoencoderTrainingConfig
) -> tuple[Muon, torch.optim.AdamW]:
    """Muon for the hidden convolutions, AdamW for the rest.

    Muon reached a lower loss after 5,000 crops than AdamW after 10,000.
    """
    hidden: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for weight in (weight for weight in model.parameters() if weight.requires_grad):
        is_hidden = weight.ndim == 4 and min(weight.shape[:2]) > RGB  # noqa: PLR2004
        (hidden if is_hidden else others).append(weight)
    rate, decay = config.learning_rate, config.weight_decay
    return (
        Muon(hidden, lr=rate, weight_decay=decay),
        torch.optim.AdamW(others, lr=rate * ADAMW_SHARE, weight_decay=decay, fused=True),
    )


def _initialise(model: AutoencoderTiny) -> None:
    """Initialise residual blocks as the identity, and the output as nearly mid-grey.

    The network has no normalisation; these weights allow a large learning rate (Zhang, Dauphin
    and Ma, "Fixup initialization", ICLR 2019).
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, AutoencoderTinyBlock):
            torch.nn.init.zeros_(module.conv[-1].weight)
    last = model.decoder.layers[-1]
    torch.nn.init.normal_(last.weight, std=0.1 * last.weight[0].numel() ** -0.5)
    torch.nn.init.constant_(last.bias, 0.5)  # the decoder's range is 0 to 1


def _train_step(
    model: AutoencoderTiny,
    optimizers: tuple[torch.optim.Optimizer, ...],
    images: torch.Tensor,
    config: AutoencoderTrainingConfig,
    random: torch.Generator,
    target: torch.Tensor | None = None,
) -> tuple[float, float]:
    """Take an optimiser step; returns the loss and the mean PSNR in dB.

    ``target``: the teacher's latents.
    """
    with _autocast(config, images.device):
        latents = model.encoder(images)
        noise = torch.randn(latents.shape, generator=random, device=latents.device)
        decoded = model.decoder(latents + config.latent_noise * noise)
    error = decoded.float() - images  # (B, 3, C, C)
    chroma = error - error.mean(dim=1, keepdim=True)
    beyond = (latents.float().abs() - LATENT_RANGE).relu().square().mean()
    loss = _rms(error) + config.chroma_weight * _rms(chroma) + beyond
    if target is not None:
        loss = loss + config.teacher_weight * _rms(latents.float() - target)
    if not torch.isfinite(loss):
        raise ModelError(
            f"the autoencoder's loss is {loss:.4g} with learning_rate {config.learning_rate} "
            "(autoencoder_training); lower it, nothing was saved"
        )
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
    for optimizer in optimizers:
        optimizer.step()
    squared = error.detach().square().mean(dim=(1, 2, 3))  # (B,)
    psnr = (10 * torch.log10(4 / (squared + MSE_FLOOR))).mean()
    return float(loss.detach()), float(psnr)


def _rms(error: torch.Tensor) -> torch.Tensor:
    """Root mean squared error, mean over the images; differentiable at 0."""
    return (error.square().mean(dim=(1, 2, 3)) + MSE_FLOOR).sqrt().mean()


@torch.no_grad()
def _update_average(average: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)


@torch.no_grad()
def _set_scaling_factor(
    model: AutoencoderTiny, sources: Mapping[str, ImageSource], config: AutoencoderTrainingConfig
) -> None:
    """Set the factor that scales the latents to unit standard deviation, as diffusion expects."""
    small = config.model_copy(update={"pool_size": min(64, config.pool_size)})
    crops = draw_pool(sources, small, np.random.default_rng([config.seed, config.steps]))
    deviation = float(model.encode(to_float(crops, torch.device("cpu"))).latents.std())
    if not USABLE[0] < deviation < USABLE[1]:
        raise ModelError(
            f"the standard deviation of the autoencoder's latents is {deviation:.3g} after the "
            f"last step; lower learning_rate (autoencoder_training), now {config.learning_rate}; "
            "nothing was saved"
        )
    model.register_to_config(scaling_factor=float(f"{1 / deviation:.5g}"))


def _row(
    step: int,
    window: list[tuple[float, float]],
    rate: float,
    seconds: float,
    config: AutoencoderTrainingConfig,
) -> Row:
    loss, psnr = np.mean(window, axis=0)
    return {
        "step": step,
        "loss": round(float(loss), 6),
        "psnr": round(float(psnr), 4),
        "learning_rate": rate,
        "seconds": round(seconds, 1),
        "crops_per_second": round(step * config.batch_size / max(seconds, 1e-9), 2),
    }


def _autocast(config: AutoencoderTrainingConfig, device: torch.device) -> Any:
    precision = config.precision
    wanted = precision if precision == "auto" else precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=resolve_bfloat16(wanted, device))
