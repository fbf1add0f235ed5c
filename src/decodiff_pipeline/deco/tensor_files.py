"""Reads tensors from untrusted files: pickled code is not executed, and all tensors are checked."""

from __future__ import annotations

import argparse
import json
import re
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from decodiff_pipeline.deco.digests import file_sha256
from decodiff_pipeline.deco.weights import CONFIG_FILE, WEIGHTS_FILE
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SIZES = (
    "sample_size",
    "in_channels",
    "base_channels",
    "num_heads",
    "context_dim",
    "norm_groups",
)
SHOWN = 3  # number of names in a message


def weights_sha256(path: Path) -> str:
    """SHA-256 of a weights file, in hexadecimal.

    Raises:
        ModelError: It cannot be read.
    """
    try:
        return file_sha256(path)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}); name a checkpoint file"
        ) from error


def read_torch(path: Path) -> dict[str, Any]:
    """Read a file of ``torch.save`` without executing pickled code.

    It may hold only tensors, plain containers and ``argparse.Namespace``.

    Raises:
        ModelError: It is damaged, has another format, or holds other objects.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _check_sums(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise various errors
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign:
            msg = (
                f"{path} holds a pickled {foreign[1]}, which is refused because unpickling can "
                "run code; if you trust the file, save its dictionary of tensors alone with "
                "safetensors.torch.save_file and use that .safetensors"
            )
        else:
            msg = (
                f"{path} is not a checkpoint that torch can read ({type(error).__name__}): "
                "damaged, truncated or of another format; download or copy it again"
            )
        raise ModelError(msg) from error
    if not isinstance(content, dict):
        raise ModelError(
            f"{path} holds a {type(content).__name__}, not the dictionary of a checkpoint"
        )
    return content


def _check_sums(path: Path) -> None:
    """Check the checksums of the archive, which torch does not check."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(damaged)


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        ModelError: It cannot be read.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path} is not a readable safetensors file ({error}); copy or convert it again"
        ) from error


def network_folder(folder: Path) -> Path:
    """The folder of the network: a saved model's ``unet``, or the folder itself.

    Raises:
        ModelError: There is no network.
    """
    for candidate in (folder / "unet", folder):
        if (candidate / CONFIG_FILE).is_file() and (candidate / WEIGHTS_FILE).is_file():
            return candidate
    raise ModelError(
        f"{folder} holds no network: neither it nor {folder / 'unet'} has {CONFIG_FILE} and "
        f"{WEIGHTS_FILE}; name a saved model or its unet folder"
    )


def read_network_config(folder: Path) -> dict[str, Any]:
    """Configuration of a saved :class:`DeCoDiffUNet`.

    Raises:
        ModelError: It cannot be read, or belongs to another kind of network.
    """
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if config["_class_name"] != "DeCoDiffUNet":
            raise ValueError(config["_class_name"])
        if not all(isinstance(name, str) for name in config["categories"]):
            raise ValueError(config["categories"])
        for key in SIZES:
            if not isinstance(config[key], int) or config[key] < 1:
                raise ValueError(f"{key}: {config[key]!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} does not describe a DeCoDiffUNet ({error!r}); name a folder that does"
        ) from error
    return config


def check_tensors(
    found: Mapping[str, object], expected: Mapping[str, torch.Size], source: Path
) -> None:
    """Check that a file has exactly the expected tensors, with equal shapes and finite values.

    Args:
        found: The content of the file.
        expected: Shape by name in the file.

    Raises:
        ModelError: Tensors are missing, unknown or wrong.
    """
    tensors = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
    both = [name for name in expected if name in tensors]
    wrong = {
        "missing": [name for name in expected if name not in tensors],
        "unknown": [name for name in found if name not in expected],
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} instead of {tuple(expected[name])}"
            for name in both
            if tensors[name].shape != expected[name]
        ],
        "not finite numbers": [
            name
            for name in both
            if not tensors[name].is_floating_point() or not tensors[name].isfinite().all()
        ],
    }
    errors = [f"{len(names)} {kind}: {_few(names)}" for kind, names in wrong.items() if names]
    if errors:
        raise ModelError(
            f"{source} does not hold this network's {len(expected)} tensors ("
            f"{'; '.join(errors)}); nothing was loaded from it, name a checkpoint of a network of "
            "the same sizes"
        )


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
