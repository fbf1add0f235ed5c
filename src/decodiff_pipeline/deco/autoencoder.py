"""Loads diffusers' image autoencoders; encodes and decodes images with scaled latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, AutoModel
from safetensors import SafetensorError

from decodiff_pipeline.deco.weights import locate
from decodiff_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from decodiff_pipeline.deco.weights import AutoencoderConfig

Autoencoder: TypeAlias = "AutoencoderKL | AutoencoderTiny"

SHIFT = "shift_factor"


def load_autoencoder(config: AutoencoderConfig) -> Autoencoder:
    """Load an ``AutoencoderTiny`` or ``AutoencoderKL`` from safetensors, in eval mode.

    Raises:
        ConfigurationError: The weights are missing or unreadable, or the model is no image
            autoencoder.
    """
    folder = locate(config)
    try:
        model = AutoModel.from_pretrained(str(folder), use_safetensors=True)
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        raise ConfigurationError(
            f"autoencoder.source {config.source!r} cannot be loaded from {folder}: {error}"
        ) from error
    if not isinstance(model, AutoencoderKL | AutoencoderTiny):
        raise ConfigurationError(
            f"autoencoder.source {config.source!r} is a {type(model).__name__}; "
            "use an AutoencoderTiny or an AutoencoderKL"
        )
    return model.eval().requires_grad_(False)


def same_autoencoder(one: Autoencoder, other: Autoencoder) -> bool:
    """Whether two autoencoders have equal type, scaling and weights."""
    if type(one) is not type(other):
        return False
    if any(one.config.get(key) != other.config.get(key) for key in ("scaling_factor", SHIFT)):
        return False
    weights, others = one.state_dict(), other.state_dict()
    return weights.keys() == others.keys() and all(
        torch.equal(tensor.float(), others[name].float()) for name, tensor in weights.items()
    )


def reduction(autoencoder: Autoencoder) -> int:
    """Downsampling factor along one side; 8 for the autoencoders of Stable Diffusion."""
    config = autoencoder.config
    blocks = config.get("block_out_channels") or config["encoder_block_out_channels"]
    return 2 ** (len(blocks) - 1)


@torch.no_grad()
def encode(autoencoder: Autoencoder, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Posterior moments of the latents, scaled by the autoencoder's ``scaling_factor``.

    Args:
        images: Float (N, 3, H, W) within [-1, 1].

    Returns:
        Mean and standard deviation, float32 (N, C, H/8, W/8) each. For an autoencoder without a
        posterior (``AutoencoderTiny``) the standard deviation has the shape (N, 0, H/8, W/8).
    """
    output = autoencoder.encode(images.to(autoencoder.device, autoencoder.dtype))
    scale = autoencoder.config.scaling_factor
    shift = autoencoder.config.get(SHIFT) or 0.0
    if hasattr(output, "latent_dist"):
        posterior = output.latent_dist
        return (posterior.mean.float() - shift) * scale, posterior.std.float() * scale
    mean = (output.latents.float() - shift) * scale
    return mean, mean[:, :0]


@torch.no_grad()
def decode(autoencoder: Autoencoder, latents: torch.Tensor) -> torch.Tensor:
    """Decode scaled latents.

    Args:
        latents: Float (N, C, h, w), scaled as by :func:`encode`.

    Returns:
        Float32 (N, 3, 8h, 8w), about within [-1, 1], not clamped.
    """
    shift = autoencoder.config.get(SHIFT) or 0.0
    raw = latents / autoencoder.config.scaling_factor + shift
    return autoencoder.decode(raw.to(autoencoder.device, autoencoder.dtype)).sample.float()
