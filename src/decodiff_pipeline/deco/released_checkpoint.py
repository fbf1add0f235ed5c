"""A checkpoint of the released code, and what can be told from it about its network."""

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
# Tensors whose shapes tell the network's sizes, and how many dimensions they have.
SIZE_TENSORS = {
    released_name(EMBEDDING): MATRIX,
    "time_embed.0.weight": MATRIX,
    "input_blocks.0.0.weight": 4,
}


@dataclass(frozen=True)
class ReleasedCheckpoint:
    """What the file holds.

    Attributes:
        path: Where it is.
        sha256: Of the file, in hexadecimal.
        tensors: The network's, by released name.
        args: The options of the training script; empty where the file has none.
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
            ModelError: It is there, but is no whole number.
        """
        value = getattr(self.args, option, default)
        if not isinstance(value, int):
            raise ModelError(f"{self.path}: args.{option} is {value!r}, not a whole number")
        return value


@dataclass(frozen=True)
class NamedCategories:
    """Category names in the order of the embedding's rows, and why they are these."""

    names: tuple[str, ...]
    reason: str


def read_released(path: Path) -> ReleasedCheckpoint:
    """Read a released ``.pt``, or a ``.safetensors`` of its ``model``.

    Raises:
        ModelError: It cannot be read, or is not such a checkpoint.
    """
    sha256 = weights_sha256(path)
    if path.suffix == ".safetensors":
        return ReleasedCheckpoint(path, sha256, read_safetensors(path), argparse.Namespace(), ())
    return released_from(read_torch(path), path, sha256)


def released_from(content: dict[str, object], path: Path, sha256: str) -> ReleasedCheckpoint:
    """Take the network and the options out of a checkpoint's dictionary.

    Raises:
        ModelError: There is no ``model`` in it.
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
    """Number of categories, once the tensors that tell the sizes are there.

    Raises:
        ModelError: They are not.
    """
    for name, dimensions in SIZE_TENSORS.items():
        tensor = checkpoint.tensors.get(name)
        if not isinstance(tensor, torch.Tensor) or tensor.ndim != dimensions:
            raise ModelError(
                f"{checkpoint.path} has no tensor {name} of {dimensions} dimensions; it is not "
                "a checkpoint of the released network"
            )
    return checkpoint.tensors[released_name(EMBEDDING)].shape[0]


def resolve_heads(
    checkpoint: ReleasedCheckpoint, base_channels: int, context_dim: int, given: int | None
) -> int:
    """Attention heads of the first level: those of the preset, or those given.

    No tensor shows them, and a wrong number gives wrong results without a complaint.

    Args:
        given: What the caller says.

    Raises:
        ConfigurationError: No preset has these sizes and none are given, or they contradict it.
    """
    known = {
        (preset.base_channels, preset.context_dim): preset.num_heads
        for preset in PRESETS.values()
        if preset.norm_groups == NORM_GROUPS
    }.get((base_channels, context_dim))
    own = getattr(checkpoint.args, "num_heads", None)
    heads = known or given or (own if isinstance(own, int) else None)
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
    """The released network, same weights and same function, in eval mode.

    Args:
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
    return network_from_tensors(config, tensors, released_name, checkpoint.path)


def resolve_categories(
    checkpoint: ReleasedCheckpoint,
    names: Sequence[str] | None = None,
    dataset: str | None = None,
) -> NamedCategories:
    """Names for the rows of the embedding.

    In this order: the names given, the data set given, what the checkpoint's options say, and
    the data set with that many categories. Some released networks have more rows than their data
    set has categories; the surplus is called ``unused_<row>``.

    Args:
        names: In the order of the rows.
        dataset: A key of :data:`CLASS_ORDERS`.

    Raises:
        ConfigurationError: The names are not as many as the rows or not distinct, or nothing
            tells them.
    """
    rows = embedding_rows(checkpoint)
    own = getattr(checkpoint.args, "class_order", None)
    if names is None and dataset is None and isinstance(own, list):
        return NamedCategories(
            _fitting([str(name) for name in own], rows, checkpoint), "saved with it"
        )
    if names is not None:
        return NamedCategories(_fitting(names, rows, checkpoint), "as given")
    said = str(getattr(checkpoint.args, "dataset", None))
    by_number = {len(order): name for name, order in CLASS_ORDERS.items()}
    chosen = dataset or (said if said in CLASS_ORDERS else by_number.get(rows))
    if chosen is None:
        raise ConfigurationError(
            f"nothing in {checkpoint.path} names its {rows} categories; give them "
            "with --categories a,b,c in the order of the embedding, or --dataset mvtec or visa"
        )
    order = CLASS_ORDERS[chosen]
    surplus = [f"unused_{row}" for row in range(len(order), rows)]
    return NamedCategories(
        _fitting([*order, *surplus], rows, checkpoint),
        f"the order of the released {chosen} loader",
    )


def _fitting(names: Sequence[str], rows: int, checkpoint: ReleasedCheckpoint) -> tuple[str, ...]:
    found = tuple(name.strip() for name in names)
    if len(found) != rows or len(set(found)) != rows or not all(found):
        raise ConfigurationError(
            f"{checkpoint.path} has {rows} categories, but {len(set(found) - {''})} distinct "
            f"names are given ({', '.join(found[:5])}, …); give one for each row with --categories"
        )
    return found
