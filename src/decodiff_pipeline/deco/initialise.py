"""Initialises a network with existing weights, and reports which tensors are used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from decodiff_pipeline.deco.released_checkpoint import released_from, resolve_categories
from decodiff_pipeline.deco.released_network import EMBEDDING, NORM_GROUPS, released_name
from decodiff_pipeline.deco.tensor_files import (
    check_tensors,
    network_folder,
    read_network_config,
    read_safetensors,
    read_torch,
    weights_sha256,
)
from decodiff_pipeline.deco.weights import WEIGHTS_FILE
from decodiff_pipeline.errors import ConfigurationError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from decodiff_pipeline.deco.unet import DeCoDiffUNet

LDM_PREFIX = "model.diffusion_model."


@dataclass(frozen=True)
class InitialWeights:
    """The tensors that were loaded. A category's row of the embedding is ``name[category]``.

    Attributes:
        used: Tensors of the source that were loaded, by the source's names.
        unused: Tensors of the source that were not loaded, by the source's names.
        untouched: Tensors of the network that keep their initial values; only rows of the
            category embedding.
        sha256: Digest of the source's weights file, in hexadecimal.
    """

    used: tuple[str, ...]
    unused: tuple[str, ...]
    untouched: tuple[str, ...]
    sha256: str


@dataclass(frozen=True)
class _Source:
    tensors: dict[str, torch.Tensor]
    other: tuple[str, ...]
    label: Callable[[str], str]  # name of a tensor in this package → name in the source
    categories: tuple[str, ...] | None
    norm_groups: int
    num_heads: int | None  # None if unknown
    sha256: str
    statistics: dict[str, list[float]] | None = None  # of standardised latents


def load_initial_weights(unet: DeCoDiffUNet, source: Path) -> InitialWeights:
    """Copy weights into a new network.

    Sources are a released DeCo-Diff ``.pt``; a latent-diffusion checkpoint such as the ImageNet
    one (``.ckpt`` or ``.safetensors``, tensors named ``model.diffusion_model.*``); and a saved
    model of this package or its ``unet`` folder. All tensors except the category embedding must
    exist with equal shapes. Rows of the embedding are matched by category; if the source has no
    category names, all rows are copied if the shapes are equal, else none. The channel statistics
    of a source with standardised latents are copied as well, since its weights depend on them.

    Args:
        unet: The network; unchanged after an error.
        source: File or folder.

    Raises:
        ModelError: The source cannot be read, or has another architecture.
    """
    stored = _folder(source) if source.is_dir() else _file(source)
    _check_architecture(unet, stored, source)
    state = unet.state_dict()
    labels = {name: stored.label(name) for name in state if name != EMBEDDING}
    expected = {label: state[name].shape for name, label in labels.items()}
    embedding = stored.tensors.get(stored.label(EMBEDDING))
    if isinstance(embedding, torch.Tensor):
        expected[stored.label(EMBEDDING)] = embedding.shape  # its number of rows may differ
    check_tensors(stored.tensors, expected, source)
    rows, used, unused, untouched = _embedding(unet, stored)
    new = {name: stored.tensors[label] for name, label in labels.items()}
    unet.load_state_dict({**new, EMBEDDING: rows})
    if stored.statistics is not None:
        unet.register_to_config(**stored.statistics)
    return InitialWeights(
        used=(*labels.values(), *used),
        unused=(*unused, *stored.other),
        untouched=untouched,
        sha256=stored.sha256,
    )


def weights_file(source: Path) -> Path:
    """The weights file of a source of :func:`load_initial_weights`.

    Raises:
        ModelError: The source is a folder without a network.
    """
    return network_folder(source) / WEIGHTS_FILE if source.is_dir() else source


def _folder(source: Path) -> _Source:
    config = read_network_config(network_folder(source))
    return _Source(
        tensors=read_safetensors(weights_file(source)),
        other=(),
        label=str,
        categories=tuple(config["categories"]),
        norm_groups=config["norm_groups"],
        num_heads=config["num_heads"],
        sha256=weights_sha256(weights_file(source)),
        statistics=_statistics(config),
    )


def _statistics(config: Mapping[str, Any]) -> dict[str, list[float]] | None:
    """Channel statistics of a network trained on standardised latents, else None."""
    if config.get("latent_mean") is None:
        return None
    return {name: list(config[name]) for name in ("latent_mean", "latent_std")}


def _file(path: Path) -> _Source:
    sha256 = weights_sha256(path)
    content: dict[str, object]
    if path.suffix == ".safetensors":
        tensors = read_safetensors(path)
        latent_diffusion = any(name.startswith(LDM_PREFIX) for name in tensors)
        content = {"state_dict" if latent_diffusion else "model": tensors}
    else:
        content = dict(read_torch(path))
    if isinstance(state := content.get("state_dict"), dict):
        return _latent_diffusion(state, path, sha256)
    checkpoint = released_from(content, path, sha256)
    try:
        categories = resolve_categories(checkpoint).names
    except ConfigurationError:
        categories = None  # the rows of the embedding have no names
    heads = getattr(checkpoint.args, "num_heads", None)
    return _Source(
        tensors=checkpoint.tensors,
        other=checkpoint.unread,
        label=released_name,
        categories=categories,
        norm_groups=NORM_GROUPS,
        num_heads=heads if isinstance(heads, int) else None,
        sha256=sha256,
    )


def _latent_diffusion(state: dict[str, torch.Tensor], path: Path, sha256: str) -> _Source:
    embedding = released_name(EMBEDDING)

    def label(name: str) -> str:
        return embedding if name == EMBEDDING else LDM_PREFIX + released_name(name)

    tensors = {
        name: tensor
        for name, tensor in state.items()
        if name.startswith(LDM_PREFIX) or name == embedding
    }
    if not any(name.startswith(LDM_PREFIX) for name in tensors):
        raise ModelError(
            f"{path} has no tensors named {LDM_PREFIX}*; it is not a latent-diffusion checkpoint"
        )
    other = tuple(name for name in state if name not in tensors)
    return _Source(tensors, other, label, None, NORM_GROUPS, None, sha256)


def _check_architecture(unet: DeCoDiffUNet, stored: _Source, source: Path) -> None:
    """Check the properties that shapes of tensors do not show."""
    for key in ("norm_groups", "num_heads"):
        expected, actual = unet.config[key], getattr(stored, key)
        if actual is not None and actual != expected:
            raise ModelError(
                f"{source} is of a network with {key}={actual}, but this one has {expected}; "
                "choose the training.preset that it was trained with"
            )
    standardised = stored.statistics is not None
    if standardised != (unet.config.latent_mean is not None):
        raise ModelError(
            f"{source} was trained on latents {'' if standardised else 'not '}standardised; "
            f"set training.standardise_latents to {str(standardised).lower()}"
        )


def _embedding(
    unet: DeCoDiffUNet, stored: _Source
) -> tuple[torch.Tensor, tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The category embedding; and ``used``, ``unused`` and ``untouched`` of `InitialWeights`."""
    rows = unet.state_dict()[EMBEDDING].clone()
    label = stored.label(EMBEDDING)
    source_rows = stored.tensors.get(label)
    if source_rows is None:
        return rows, (), (), (EMBEDDING,)
    if stored.categories is None and source_rows.shape == rows.shape:
        return source_rows, (label,), (), ()
    if stored.categories is None or source_rows.shape[1:] != rows.shape[1:]:
        return rows, (), (label,), (EMBEDDING,)
    known = {name: row for row, name in enumerate(stored.categories)}
    for row, name in enumerate(unet.categories):
        if name in known:
            rows[row] = source_rows[known[name]]
    return (
        rows,
        tuple(f"{label}[{name}]" for name in known if name in unet.categories),
        tuple(f"{label}[{name}]" for name in known if name not in unet.categories),
        tuple(f"{EMBEDDING}[{name}]" for name in unet.categories if name not in known),
    )
