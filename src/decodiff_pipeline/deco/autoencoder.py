"""Latents from any of diffusers' image autoencoders, in the unit the network is trained on."""

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
        ConfigurationError: The weights cannot be had, are not readable, or are not those of an
            image autoencoder.
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
    """Whether two autoencoders give the same latents, wherever each was loaded from."""
    if type(one) is not type(other):
        return False
    if any(one.config.get(key) != other.config.get(key) for key in ("scaling_factor", SHIFT)):
        return False
    weights, others = one.state_dict(), other.state_dict()
    return weights.keys() == others.keys() and all(
        torch.equal(tensor.float(), others[name].float()) for name, tensor in weights.items()
    )


def reduction(autoencoder: Autoencoder) -> int:
    """Image pixels per latent pixel along one side, 8 for the autoencoders of Stable Diffusion."""
    config = autoencoder.config
    blocks = config.get("block_out_channels") or config["encoder_block_out_channels"]
    return 2 ** (len(blocks) - 1)


@torch.no_grad()
def encode(autoencoder: Autoencoder, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Posterior moments of the latents, scaled by the autoencoder's own ``scaling_factor``.

    Args:
        images: Float (N, 3, H, W) within [-1, 1].

    Returns:
        Mean (N, C, H/8, W/8) and standard deviation of the same shape; an autoencoder without a
        posterior (``AutoencoderTiny``) gives a standard deviation of shape (N, 0, H/8, W/8).
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
    """Images of scaled latents.

    Args:
        latents: Float (N, C, h, w), scaled as :func:`encode` scales them.

    Returns:
        Float32 (N, 3, 8h, 8w), about within [-1, 1] and not clamped.
    """
    shift = autoencoder.config.get(SHIFT) or 0.0
    raw = latents / autoencoder.config.scaling_factor + shift
    return autoencoder.decode(raw.to(autoencoder.device, autoencoder.dtype)).sample.float()
