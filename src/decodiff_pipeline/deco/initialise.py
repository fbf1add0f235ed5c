"""Start training from weights that exist: whatever is not taken is named, never made up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from decodiff_pipeline.deco.released_checkpoint import released_from, resolve_categories
from decodiff_pipeline.deco.released_network import EMBEDDING, NORM_GROUPS, released_name
from decodiff_pipeline.deco.tensor_files import (
    check_tensors,
    network_folder,
    read_network_folder,
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
    """Which tensors were loaded. A category's row of the embedding is ``name[category]``.

    Attributes:
        used: Tensors of the source that the network now has, by the source's names.
        unused: Tensors of the source that were left aside, by the source's names.
        untouched: Tensors of the network that keep their initial values; rows of the category
            embedding at most.
        sha256: Of the source's file of weights, in hexadecimal.
    """

    used: tuple[str, ...]
    unused: tuple[str, ...]
    untouched: tuple[str, ...]
    sha256: str


@dataclass(frozen=True)
class _Source:
    tensors: dict[str, torch.Tensor]
    other: tuple[str, ...]
    label: Callable[[str], str]  # our name of a tensor -> the source's
    categories: tuple[str, ...] | None
    norm_groups: int
    num_heads: int | None  # None where the source does not say
    sha256: str
    statistics: dict[str, list[float]] | None = None  # of the unit it was trained in


def load_initial_weights(unet: DeCoDiffUNet, source: Path) -> InitialWeights:
    """Copy weights into a network that was just built.

    Three sources: a released DeCo-Diff ``.pt``; a latent-diffusion checkpoint such as the
    ImageNet one (``.ckpt`` or ``.safetensors``, tensors named ``model.diffusion_model.*``); a
    saved model of ours or its ``unet`` folder. All tensors but the category embedding must be
    there in the same shapes. Rows of the embedding are taken by the name of their category; where
    the source has no names, all of them if the shapes are equal, and otherwise none. Where the
    source was trained on standardised latents, its channel statistics are taken as well: in
    another unit its weights would see other numbers for the same image.

    Args:
        unet: The network; unchanged if this raises.
        source: File or folder.

    Raises:
        ModelError: The source cannot be read, or is of another network.
    """
    stored = _folder(source) if source.is_dir() else _file(source)
    _check_design(unet, stored, source)
    state = unet.state_dict()
    labels = {name: stored.label(name) for name in state if name != EMBEDDING}
    expected = {label: state[name].shape for name, label in labels.items()}
    embedding = stored.tensors.get(stored.label(EMBEDDING))
    if isinstance(embedding, torch.Tensor):
        expected[stored.label(EMBEDDING)] = embedding.shape  # it may have other rows
    check_tensors(stored.tensors, expected, source)
    rows, report = _embedding(unet, stored)
    new = {name: stored.tensors[label] for name, label in labels.items()}
    unet.load_state_dict({**new, EMBEDDING: rows})
    if stored.statistics is not None:
        unet.register_to_config(**stored.statistics)
    return InitialWeights(
        used=(*labels.values(), *report.used),
        unused=(*report.unused, *stored.other),
        untouched=report.untouched,
        sha256=stored.sha256,
    )


def weights_file(source: Path) -> Path:
    """The file that :func:`load_initial_weights` takes the tensors of a source from.

    Raises:
        ModelError: It is a folder that holds no network.
    """
    return network_folder(source) / WEIGHTS_FILE if source.is_dir() else source


def _folder(source: Path) -> _Source:
    folder = network_folder(source)
    config, tensors = read_network_folder(folder)
    return _Source(
        tensors=tensors,
        other=(),
        label=str,
        categories=tuple(config["categories"]),
        norm_groups=config["norm_groups"],
        num_heads=config["num_heads"],
        sha256=weights_sha256(weights_file(source)),
        statistics=_statistics(config),
    )


def _statistics(config: Mapping[str, Any]) -> dict[str, list[float]] | None:
    """Mean and standard deviation by channel of the latents that a network was trained on."""
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
        categories = None  # rows without names
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

    own = {
        name: tensor
        for name, tensor in state.items()
        if name.startswith(LDM_PREFIX) or name == embedding
    }
    if not any(name.startswith(LDM_PREFIX) for name in own):
        raise ModelError(
            f"{path} has no tensors named {LDM_PREFIX}*; it is not a latent-diffusion checkpoint"
        )
    other = tuple(name for name in state if name not in own)
    return _Source(own, other, label, None, NORM_GROUPS, None, sha256)


def _check_design(unet: DeCoDiffUNet, stored: _Source, source: Path) -> None:
    """What no tensor's shape shows."""
    for key in ("norm_groups", "num_heads"):
        wanted, found = unet.config[key], getattr(stored, key)
        if found is not None and found != wanted:
            raise ModelError(
                f"{source} is of a network with {key}={found}, but this one has {wanted}; choose "
                "the training.preset that it was trained with"
            )
    standardised = stored.statistics is not None
    if standardised != (unet.config.latent_mean is not None):
        raise ModelError(
            f"{source} was trained on latents {'' if standardised else 'not '}standardised; "
            f"set training.standardise_latents to {str(standardised).lower()}"
        )


def _embedding(unet: DeCoDiffUNet, stored: _Source) -> tuple[torch.Tensor, InitialWeights]:
    """The category embedding with the rows that the source knows, and which these are."""
    own = unet.state_dict()[EMBEDDING].clone()
    label = stored.label(EMBEDDING)
    found = stored.tensors.get(label)
    if found is None:
        return own, InitialWeights((), (), (EMBEDDING,), "")
    if found.shape[1:] != own.shape[1:]:
        return own, InitialWeights((), (label,), (EMBEDDING,), "")
    if stored.categories is None:
        if found.shape != own.shape:
            return own, InitialWeights((), (label,), (EMBEDDING,), "")
        return found, InitialWeights((label,), (), (), "")
    known = {name: row for row, name in enumerate(stored.categories)}
    for row, name in enumerate(unet.categories):
        if name in known:
            own[row] = found[known[name]]
    return own, InitialWeights(
        used=tuple(f"{label}[{name}]" for name in known if name in unet.categories),
        unused=tuple(f"{label}[{name}]" for name in known if name not in unet.categories),
        untouched=tuple(f"{EMBEDDING}[{name}]" for name in unet.categories if name not in known),
        sha256="",
    )
