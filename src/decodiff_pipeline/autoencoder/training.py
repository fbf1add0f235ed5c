"""Fits a small ``AutoencoderTiny``, from random weights, to images.

The objective is the root mean squared error of each image plus that of its colour alone. The mean
PSNR is no objective: its gradient goes with the inverse of the error, so that images which are good
already get all of it, and the coloured ones none. Noise on the latents keeps the decoder smooth,
and a penalty on latents beyond its soft clip at 3 keeps every channel in use. A teacher's latents
can be a target beside the images: a detector learns latents of that structure faster.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from PIL import Image

from decodiff_pipeline.deco.autoencoder import encode, load_autoencoder, reduction
from decodiff_pipeline.deco.device import resolve_bfloat16, resolve_device
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.training.muon import Muon
from decodiff_pipeline.training.schedule import learning_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from decodiff_pipeline.autoencoder.config import AutoencoderTrainingConfig
    from decodiff_pipeline.autoencoder.image_sources import ImageSource
    from decodiff_pipeline.deco.autoencoder import Autoencoder

    Row = dict[str, float]

# Below this mean squared error (46 dB, images in [-1, 1]) a flat crop has nothing left to teach.
MSE_FLOOR = 1e-4
# Of the latents' standard deviation. Below they are all the same but for rounding; above the
# encoder has diverged, though the decoder may still give a mid-grey.
USABLE = (1e-6, 1e6)
RGB = 3
LATENT_RANGE = 3  # where the decoder's soft clip ends: a channel that drifts out of it is lost
ADAMW_SHARE = 0.5  # of the learning rate
TEACHER_EVERY = 4  # steps: the teacher takes longer to encode a batch than the fit to learn from it


def train_autoencoder(
    sources: Mapping[str, ImageSource],
    config: AutoencoderTrainingConfig,
    *,
    on_log: Callable[[Row], None] | None = None,
) -> tuple[AutoencoderTiny, list[Row]]:
    """Runs the whole fit; the same arguments on the same machine give the same weights.

    Args:
        sources: The images, by the names in ``config.sources``.
        config: Everything else.
        on_log: Called with every row of the log as it is made.

    Returns:
        The autoencoder with averaged (EMA) weights, in eval mode on the CPU, the deviation of its
        latents as ``config.scaling_factor``, and the log: per row ``step``, ``loss``, ``psnr`` (dB,
        over training crops), ``learning_rate``, ``seconds`` and ``crops_per_second``.

    Raises:
        ModelError: The loss, or the scale of the latents, is no longer a number; ``init_from`` has
            another network; or the teacher has other latents.
    """
    device = torch.device(resolve_device(config.device))
    model = initial_autoencoder(config).to(device, memory_format=torch.channels_last)
    average = initial_autoencoder(config).to(device)
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
    _set_scaling_factor(average, sources, config)
    return average, log


def initial_autoencoder(config: AutoencoderTrainingConfig) -> AutoencoderTiny:
    """Returns the autoencoder that ``config.init_from`` names, in training mode and float32."""
    model = new_autoencoder(config)
    if config.init_from == "scratch":
        return model
    start = load_autoencoder(AutoencoderConfig(config.init_from))
    weights = start.state_dict()
    shapes = {name: weight.shape for name, weight in weights.items()}
    if shapes != {name: weight.shape for name, weight in model.state_dict().items()}:
        msg = (
            f"autoencoder_training.init_from {config.init_from!r} is not an AutoencoderTiny of "
            f"width {config.width}, blocks {list(config.blocks)} and {config.latent_channels} "
            "latent channels; set these to its own, or init_from to scratch"
        )
        raise ModelError(msg)
    model.load_state_dict(weights)
    return model


def new_autoencoder(config: AutoencoderTrainingConfig) -> AutoencoderTiny:
    """Makes an untrained autoencoder, seeded, without touching the global random state."""
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
        msg = (
            f"autoencoder_training.teacher {config.teacher!r} has {theirs[0]} channels at "
            f"1/{theirs[1]} of the size, the fit has {ours[0]} at 1/{ours[1]}; set "
            f"latent_channels and blocks to the teacher's"
        )
        raise ModelError(msg)
    return teacher.to(memory_format=torch.channels_last)


def new_optimizers(
    model: AutoencoderTiny, config: AutoencoderTrainingConfig
) -> tuple[Muon, torch.optim.AdamW]:
    """Muon for the convolutions between feature maps, AdamW for the rest.

    Muon reached after 5,000 crops what AdamW did not reach after 10,000 (docs/autoencoder.md).
    """
    hidden: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for weight in model.parameters():
        between = weight.ndim == 4 and min(weight.shape[:2]) > RGB  # noqa: PLR2004
        (hidden if between else others).append(weight)
    rate, decay = config.learning_rate, config.weight_decay
    return (
        Muon(hidden, lr=rate, weight_decay=decay),
        torch.optim.AdamW(others, lr=rate * ADAMW_SHARE, weight_decay=decay, fused=True),
    )


def _initialise(model: AutoencoderTiny) -> None:
    """Residual blocks start as the identity, and the first decoded image is nearly mid-grey.

    There is no normalisation in this network, so it is the initial weights that let a large
    learning rate through (Zhang, Dauphin and Ma, "Fixup initialization", ICLR 2019).
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
    torch.nn.init.constant_(last.bias, 0.5)  # the decoder's own range is 0 to 1


def batches(
    sources: Mapping[str, ImageSource],
    config: AutoencoderTrainingConfig,
    device: torch.device,
) -> Iterator[torch.Tensor]:
    """Yields ``config.steps`` batches of images, ``(B, 3, C, C)`` in [-1, 1].

    A pool of crops is drawn and used ``passes`` times, since drawing an image takes as long as
    learning from several crops.
    """
    steps = config.pool_size * config.passes // config.batch_size
    for first in range(0, config.steps, steps):
        rng = np.random.default_rng([config.seed, first // steps])
        pool = draw_pool(sources, config, rng)
        order = np.concatenate([rng.permutation(len(pool)) for _ in range(config.passes)])
        for step in range(min(steps, config.steps - first)):
            chosen = torch.from_numpy(order[step * config.batch_size :][: config.batch_size])
            images = _to_float(pool[chosen], device)
            yield _jitter(images, rng) if rng.random() < config.colour_jitter else images


def _jitter(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Permutes the channels of a batch and dims each channel of each image by 0.6 to 1."""
    gains = torch.from_numpy(rng.uniform(0.6, 1, (len(images), RGB, 1, 1)).astype(np.float32))
    permuted = images[:, torch.from_numpy(rng.permutation(RGB)).to(images.device)]
    dimmed = (permuted + 1) * gains.to(images.device) - 1
    return dimmed.contiguous(memory_format=torch.channels_last)


def draw_pool(
    sources: Mapping[str, ImageSource], config: AutoencoderTrainingConfig, rng: np.random.Generator
) -> torch.Tensor:
    """Draws ``pool_size`` crops, turned and mirrored at random: ``(N, 3, C, C)``, uint8."""
    names = list(config.sources)
    shares = np.array([config.sources[name] for name in names], float)
    crops: list[NDArray[np.uint8]] = []
    while len(crops) < config.pool_size:
        source = sources[names[int(rng.choice(len(names), p=shares / shares.sum()))]]
        image = _rescale(source[int(rng.integers(len(source)))], config, rng)
        for _ in range(min(config.crops_per_image, config.pool_size - len(crops))):
            crops.append(_crop(image, config, rng))
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)  # (N, C, C, 3) -> (N, 3, C, C)


def _rescale(
    image: NDArray[np.uint8], config: AutoencoderTrainingConfig, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Brings the short side to the drawn length (bicubic), which the image is not enlarged for.

    The length is log-uniform, so that small images, which hold more detail in a crop, come as often
    as large ones.
    """
    short = min(image.shape[:2])
    wanted = round(config.image_size * config.max_scale ** rng.random())
    side = max(min(wanted, short), config.image_size)
    if side == short:
        return image
    height, width = (max(side, round(n * side / short)) for n in image.shape[:2])
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def _crop(
    image: NDArray[np.uint8], config: AutoencoderTrainingConfig, rng: np.random.Generator
) -> NDArray[np.uint8]:
    size = config.crop_size
    top = int(rng.integers(image.shape[0] - size + 1))
    left = int(rng.integers(image.shape[1] - size + 1))
    crop = np.rot90(image[top : top + size, left : left + size], int(rng.integers(4)))
    if rng.random() < 0.5:  # noqa: PLR2004
        crop = crop[:, ::-1]
    if rng.random() < config.grey_share:
        grey = np.rint(crop @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
        crop = np.repeat(grey[..., None], 3, axis=2)
    return crop


def _train_step(
    model: AutoencoderTiny,
    optimizers: tuple[torch.optim.Optimizer, ...],
    images: torch.Tensor,
    config: AutoencoderTrainingConfig,
    random: torch.Generator,
    target: torch.Tensor | None = None,
) -> tuple[float, float]:
    """One update; returns the loss and the mean PSNR in dB. ``target``: latents of the teacher."""
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
        msg = (
            f"the autoencoder's loss is {loss:.4g} with learning_rate {config.learning_rate} "
            "(autoencoder_training); lower it, nothing was saved"
        )
        raise ModelError(msg)
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
    """Mean over the images of the root mean squared error; an error of 0 has a gradient of 0."""
    return (error.square().mean(dim=(1, 2, 3)) + MSE_FLOOR).sqrt().mean()


@torch.no_grad()
def _update_average(average: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)


@torch.no_grad()
def _set_scaling_factor(
    model: AutoencoderTiny, sources: Mapping[str, ImageSource], config: AutoencoderTrainingConfig
) -> None:
    """Diffusion expects latents of about unit deviation."""
    few = config.model_copy(update={"pool_size": min(64, config.pool_size)})
    crops = draw_pool(sources, few, np.random.default_rng([config.seed, config.steps]))
    deviation = float(model.encode(_to_float(crops, torch.device("cpu"))).latents.std())
    if not USABLE[0] < deviation < USABLE[1]:
        msg = (
            f"the standard deviation of the autoencoder's latents is {deviation:.3g} after the "
            f"last step; lower learning_rate (autoencoder_training), now {config.learning_rate}; "
            "nothing was saved"
        )
        raise ModelError(msg)
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


def _to_float(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """uint8 0-255 to float32 in [-1, 1], channels last (1.5 times as fast on a CPU)."""
    images = images.to(device).contiguous(memory_format=torch.channels_last)
    return images.float() / 127.5 - 1


def _autocast(config: AutoencoderTrainingConfig, device: torch.device) -> Any:
    precision = config.precision
    wanted = precision if precision == "auto" else precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=resolve_bfloat16(wanted, device))
