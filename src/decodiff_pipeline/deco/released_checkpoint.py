"""Reads checkpoints of the released code and infers the network's configuration from them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from decodiff_pipeline.deco.released_network import (
    CLASS_ORDERS,
    EMBEDDING,
    NORM_GROUPS,
    network_from_tensors,
    released_name,
)
from decodiff_pipeline.deco.tensor_files import read_safetensors, read_torch, weights_sha256
from decodiff_pipeline.deco.unet import PRESETS
from decodiff_pipeline.errors import ConfigurationError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from decodiff_pipeline.deco.unet import DeCoDiffUNet

MATRIX = 2
# Tensors whose shapes determine the network's sizes, and their number of dimensions.
SIZE_TENSORS = {
    released_name(EMBEDDING): MATRIX,
    "time_embed.0.weight": MATRIX,
    "input_blocks.0.0.weight": 4,
}


@dataclass(frozen=True)
class ReleasedCheckpoint:
    """The content of a released checkpoint.

    Attributes:
        path: Path of the file.
        sha256: Digest of the file, in hexadecimal.
        tensors: The network's tensors, by released name.
        args: The options of the training script; may be empty.
        unread: Names of the file's other entries.
    """

    path: Path
    sha256: str
    tensors: dict[str, torch.Tensor]
    args: argparse.Namespace
    unread: tuple[str, ...]

    def integer(self, option: str, default: int) -> int:
        """An option of the training script.

        Raises:
            ModelError: Its value is no integer.
        """
        value = getattr(self.args, option, default)
        if not isinstance(value, int):
            raise ModelError(f"{self.path}: args.{option} is {value!r}, not a whole number")
        return value


@dataclass(frozen=True)
class NamedCategories:
    """Category names in the order of the embedding's rows, and their origin."""

    names: tuple[str, ...]
    reason: str


def read_released(path: Path) -> ReleasedCheckpoint:
    """Read a released ``.pt``, or a ``.safetensors`` of its ``model``.

    Raises:
        ModelError: It cannot be read, or is no such checkpoint.
    """
    sha256 = weights_sha256(path)
    if path.suffix == ".safetensors":
        return ReleasedCheckpoint(path, sha256, read_safetensors(path), argparse.Namespace(), ())
    return released_from(read_torch(path), path, sha256)


def released_from(content: dict[str, object], path: Path, sha256: str) -> ReleasedCheckpoint:
    """Extract network and options from a checkpoint's dictionary.

    Raises:
        ModelError: It has no ``model``.
    """
    model = content.get("model")
    if not isinstance(model, dict) or not all(isinstance(name, str) for name in model):
        keys = ", ".join(sorted(str(key) for key in content)[:5]) or "nothing"
        raise ModelError(
            f"{path} has no dictionary of tensors under 'model' (found: {keys}); name a "
            "checkpoint of the released train_DeCo_Diff.py"
        )
    args = content.get("args")
    return ReleasedCheckpoint(
        path=path,
        sha256=sha256,
        tensors=model,
        args=args if isinstance(args, argparse.Namespace) else argparse.Namespace(),
        unread=tuple(sorted(str(key) for key in content if key not in {"model", "args"})),
    )


def embedding_rows(checkpoint: ReleasedCheckpoint) -> int:
    """Number of categories.

    Raises:
        ModelError: One of `SIZE_TENSORS` is missing.
    """
    for name, dimensions in SIZE_TENSORS.items():
        tensor = checkpoint.tensors.get(name)
        if not isinstance(tensor, torch.Tensor) or tensor.ndim != dimensions:
            raise ModelError(
                f"{checkpoint.path} has no tensor {name} of {dimensions} dimensions; it is not "
                "a checkpoint of the released network"
            )
    return checkpoint.tensors[released_name(EMBEDDING)].shape[0]


def _resolve_heads(
    checkpoint: ReleasedCheckpoint, base_channels: int, context_dim: int, given: int | None
) -> int:
    """Attention heads of the first level: the preset's, or ``given``.

    They do not follow from the shapes of tensors, and a wrong number gives wrong results without
    an error.
    """
    known = {
        (preset.base_channels, preset.context_dim): preset.num_heads
        for preset in PRESETS.values()
        if preset.norm_groups == NORM_GROUPS
    }.get((base_channels, context_dim))
    stored = getattr(checkpoint.args, "num_heads", None)
    heads = known or given or (stored if isinstance(stored, int) else None)
    sizes = f"{checkpoint.path} with {base_channels} channels and context {context_dim}"
    if heads is None or heads < 1:
        raise ConfigurationError(
            f"{sizes} is none of the released sizes; give its number of heads with --heads"
        )
    if given is not None and given != heads:
        raise ConfigurationError(
            f"--heads {given} contradicts {sizes}, which has {heads}; leave --heads out"
        )
    return heads


def network_from_released(
    checkpoint: ReleasedCheckpoint,
    categories: Sequence[str],
    *,
    num_heads: int | None = None,
    sample_size: int = 32,
) -> DeCoDiffUNet:
    """The released network as a :class:`DeCoDiffUNet` with the same outputs, in eval mode.

    Args:
        categories: One name per row of the embedding.
        num_heads: Attention heads of the first level, if no preset has the sizes.
        sample_size: Side of the latents in training.

    Raises:
        ModelError: The tensors are not those of a released network.
        ConfigurationError: The number of heads is unknown or contradicts the sizes, or the number
            of names is wrong.
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
        "num_heads": _resolve_heads(checkpoint, base, context, num_heads),
        "context_dim": context,
        "norm_groups": NORM_GROUPS,
    }
    return network_from_tensors(config, tensors, released_name, checkpoint.path)


def resolve_categories(
    checkpoint: ReleasedCheckpoint,
    names: Sequence[str] | None = None,
    dataset: str | None = None,
) -> NamedCategories:
    """Category names for the rows of the embedding.

    The first of these is used: ``names``, ``dataset``, the checkpoint's options, the data set
    with that many categories. Some released networks have more rows than their data set has
    categories; additional rows are named ``unused_<row>``.

    Args:
        names: Names in the order of the rows.
        dataset: A key of :data:`CLASS_ORDERS`.

    Raises:
        ConfigurationError: The number of names is not that of the rows, names are not distinct,
            or they are unknown.
    """
    rows = embedding_rows(checkpoint)
    stored = getattr(checkpoint.args, "class_order", None)
    if names is None and dataset is None and isinstance(stored, list):
        return NamedCategories(
            _checked_names([str(name) for name in stored], rows, checkpoint), "saved with it"
        )
    if names is not None:
        return NamedCategories(_checked_names(names, rows, checkpoint), "as given")
    option = str(getattr(checkpoint.args, "dataset", None))
    by_number = {len(order): name for name, order in CLASS_ORDERS.items()}
    dataset = dataset or (option if option in CLASS_ORDERS else by_number.get(rows))
    if dataset is None:
        raise ConfigurationError(
            f"nothing in {checkpoint.path} names its {rows} categories; give them "
            "with --categories a,b,c in the order of the embedding, or --dataset mvtec or visa"
        )
    order = CLASS_ORDERS[dataset]
    unused = [f"unused_{row}" for row in range(len(order), rows)]
    return NamedCategories(
        _checked_names([*order, *unused], rows, checkpoint),
        f"the order of the released {dataset} loader",
    )


def _checked_names(
    names: Sequence[str], rows: int, checkpoint: ReleasedCheckpoint
) -> tuple[str, ...]:
    stripped = tuple(name.strip() for name in names)
    if len(stripped) != rows or len(set(stripped)) != rows or not all(stripped):
        raise ConfigurationError(
            f"{checkpoint.path} has {rows} categories, but {len(set(stripped) - {''})} distinct "
            f"names are given ({', '.join(stripped[:5])}, …); give one for each row with "
            "--categories"
        )
    return stripped
