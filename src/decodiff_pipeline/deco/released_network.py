"""Between a checkpoint's tensors and the network they belong to."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from decodiff_pipeline.deco.released_checkpoint import embedding_rows, resolve_heads
from decodiff_pipeline.deco.released_keys import EMBEDDING, NORM_GROUPS, released_name
from decodiff_pipeline.deco.tensor_files import check_tensors
from decodiff_pipeline.deco.unet import PRESETS, DeCoDiffUNet
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from decodiff_pipeline.deco.released_checkpoint import ReleasedCheckpoint


def network_from_released(
    checkpoint: ReleasedCheckpoint,
    categories: Sequence[str],
    *,
    num_heads: int | None = None,
    sample_size: int = 32,
) -> DeCoDiffUNet:
    """The released network, same weights and same function, in eval mode.

    Args:
        checkpoint: As :func:`read_released` returns it.
        categories: One name per row of its embedding.
        num_heads: Attention heads of the first level, where the sizes do not tell.
        sample_size: Side of the latents that it was trained on.

    Raises:
        ModelError: The tensors are not those of one network of this kind.
        ConfigurationError: The heads are unknown, or the names do not fit.
    """
    tensors = checkpoint.tensors
    embedding_rows(checkpoint)
    base, context = (
        tensors["time_embed.0.weight"].shape[1],
        tensors[released_name(EMBEDDING)].shape[1],
    )
    config = {
        "categories": list(categories),
        "sample_size": sample_size,
        "in_channels": tensors["input_blocks.0.0.weight"].shape[1],
        "base_channels": base,
        "num_heads": resolve_heads(checkpoint, base, context, num_heads),
        "context_dim": context,
        "norm_groups": NORM_GROUPS,
    }
    return assemble(config, tensors, released_name, checkpoint.path)


def released_tensors(unet: DeCoDiffUNet) -> dict[str, torch.Tensor]:
    """The network's tensors by their released names, float32 on the CPU.

    Raises:
        ModelError: The released code has no such network: another number of groups in its
            normalisation, or standardised latents.
    """
    if unet.config.norm_groups != NORM_GROUPS:
        msg = (
            f"the network has norm_groups={unet.config.norm_groups}, but the released code knows "
            f"only {NORM_GROUPS}; train with training.preset XS, S, M, L or XL to export it"
        )
        raise ModelError(msg)
    if unet.config.latent_mean or unet.config.latent_std:
        msg = (
            "the network works on standardised latents, which the released code does not know; "
            "train with training.standardise_latents: false to export it"
        )
        raise ModelError(msg)
    return {
        released_name(name): tensor.detach().float().cpu().contiguous()
        for name, tensor in unet.state_dict().items()
    }


def assemble(
    config: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    label: Callable[[str], str],
    source: Path,
) -> DeCoDiffUNet:
    """A network of known configuration with a file's tensors, in float32 and eval mode.

    Args:
        config: As :class:`DeCoDiffUNet` saves it.
        tensors: All of its tensors, by the file's names.
        label: The file's name of one of the network's tensors.
        source: The file, for messages.

    Raises:
        ModelError: They are not this network's tensors.
    """
    with torch.device("meta"):  # no time and memory for random weights
        unet = DeCoDiffUNet.from_config(config)
    expected = {name: tensor.shape for name, tensor in unet.state_dict().items()}
    check_tensors(tensors, {label(name): shape for name, shape in expected.items()}, source)
    state = {name: tensors[label(name)].float().contiguous() for name in expected}
    unet.load_state_dict(state, assign=True)
    return unet.eval()


def describe(unet: DeCoDiffUNet) -> str:
    """The network's sizes in a line."""
    config = unet.config
    return (
        f"network {preset_name(unet) or 'of no preset'}: {config.base_channels} channels, "
        f"{config.num_heads} heads, context {config.context_dim}, {len(unet.categories)} "
        f"categories, {sum(p.numel() for p in unet.parameters()):,} parameters"
    )


def preset_name(unet: DeCoDiffUNet) -> str | None:
    """The key of :data:`PRESETS` with the network's sizes, if there is one."""
    config = unet.config
    size = (config.base_channels, config.num_heads, config.context_dim, config.norm_groups)
    names = {tuple(asdict(preset).values()): name for name, preset in PRESETS.items()}
    return names.get(size)
