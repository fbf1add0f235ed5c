"""Maps between the released network and :class:`DeCoDiffUNet`: tensor names, category order."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING

import torch

from decodiff_pipeline.deco.tensor_files import check_tensors
from decodiff_pipeline.deco.unet import PRESETS, DeCoDiffUNet
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

LEVELS, BLOCKS = 3, 2
EMBEDDING = "category_embedding.weight"
NORM_GROUPS = 32

# Name of each part of a residual block in this package → released name.
RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}

# Category order of the released data loaders: rows of the embedding.
CLASS_ORDERS = {
    "mvtec": (
        "capsule",
        "bottle",
        "grid",
        "leather",
        "metal_nut",
        "tile",
        "transistor",
        "zipper",
        "cable",
        "carpet",
        "hazelnut",
        "pill",
        "screw",
        "toothbrush",
        "wood",
    ),
    "visa": (
        "candle",
        "cashew",
        "fryum",
        "macaroni2",
        "pcb2",
        "pcb4",
        "capsules",
        "chewinggum",
        "macaroni1",
        "pcb1",
        "pcb3",
        "pipe_fryum",
    ),
}


def released_name(name: str) -> str:
    """The released (LDM) name of a tensor of :class:`DeCoDiffUNet`; one to one.

    Raises:
        KeyError: The network has no such tensor.
    """
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = _released_modules().get(".".join(parts[:length]))
        if module:
            return ".".join([module, *parts[length:]])
    raise KeyError(name)


@cache
def _released_modules() -> dict[str, str]:
    modules = {
        "category_embedding": "cond_stage_model.embedding",
        "unet.time_embedding.linear_1": "time_embed.0",
        "unet.time_embedding.linear_2": "time_embed.2",
        "unet.conv_in": "input_blocks.0.0",
        "unet.conv_norm_out": "out.0",
        "unet.conv_out": "out.2",
        "unet.mid_block.attentions.0": "middle_block.1",
        **_residual("unet.mid_block.resnets.0", "middle_block.0"),
        **_residual("unet.mid_block.resnets.1", "middle_block.2"),
    }
    for level in range(LEVELS):
        down, up = f"unet.down_blocks.{level}", f"unet.up_blocks.{level}"
        after = (BLOCKS + 1) * (level + 1)
        modules[f"{down}.downsamplers.0.conv"] = f"input_blocks.{after}.0.op"
        modules[f"{up}.upsamplers.0.conv"] = f"output_blocks.{after - 1}.2.conv"
        for block in range(BLOCKS):
            released = f"input_blocks.{1 + (BLOCKS + 1) * level + block}"
            modules |= _residual(f"{down}.resnets.{block}", f"{released}.0")
            modules[f"{down}.attentions.{block}"] = f"{released}.1"
        for block in range(BLOCKS + 1):
            released = f"output_blocks.{(BLOCKS + 1) * level + block}"
            modules |= _residual(f"{up}.resnets.{block}", f"{released}.0")
            modules[f"{up}.attentions.{block}"] = f"{released}.1"
    return modules


def _residual(ours: str, released: str) -> dict[str, str]:
    return {f"{ours}.{part}": f"{released}.{name}" for part, name in RESIDUAL.items()}


def released_tensors(unet: DeCoDiffUNet) -> dict[str, torch.Tensor]:
    """The network's tensors by released name, float32 on the CPU.

    Raises:
        ModelError: The released code does not support the network's group normalisation or
            standardised latents.
    """
    if unet.config.norm_groups != NORM_GROUPS:
        raise ModelError(
            f"the network has norm_groups={unet.config.norm_groups}, but the released code knows "
            f"only {NORM_GROUPS}; train with training.preset XS, S, M, L or XL to export it"
        )
    if unet.config.latent_mean or unet.config.latent_std:
        raise ModelError(
            "the network works on standardised latents, which the released code does not know; "
            "train with training.standardise_latents: false to export it"
        )
    return {
        released_name(name): tensor.detach().float().cpu().contiguous()
        for name, tensor in unet.state_dict().items()
    }


def network_from_tensors(
    config: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    label: Callable[[str], str],
    source: Path,
) -> DeCoDiffUNet:
    """A network with given configuration and tensors, in float32 and eval mode.

    Args:
        config: As :class:`DeCoDiffUNet` saves it.
        tensors: All tensors, by the file's names.
        label: Maps a name in the network to the name in the file.

    Raises:
        ModelError: The tensors do not match the network.
    """
    with torch.device("meta"):  # skips the initialisation with random weights
        unet = DeCoDiffUNet.from_config(config)
    expected = {name: tensor.shape for name, tensor in unet.state_dict().items()}
    check_tensors(tensors, {label(name): shape for name, shape in expected.items()}, source)
    state = {name: tensors[label(name)].float().contiguous() for name in expected}
    unet.load_state_dict(state, assign=True)
    return unet.eval()


def describe(unet: DeCoDiffUNet) -> str:
    """The network's sizes in one line, for messages."""
    config = unet.config
    return (
        f"network {preset_name(unet) or 'of no preset'}: {config.base_channels} channels, "
        f"{config.num_heads} heads, context {config.context_dim}, {len(unet.categories)} "
        f"categories, {sum(p.numel() for p in unet.parameters()):,} parameters"
    )


def preset_name(unet: DeCoDiffUNet) -> str | None:
    """The key of :data:`PRESETS` with the network's sizes, or None."""
    config = unet.config
    size = (config.base_channels, config.num_heads, config.context_dim, config.norm_groups)
    names = {tuple(asdict(preset).values()): name for name, preset in PRESETS.items()}
    return names.get(size)
