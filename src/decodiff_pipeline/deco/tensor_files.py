"""Tensors from files that others made: no pickle is run, and every tensor is accounted for."""

from __future__ import annotations

import argparse
import json
import logging
import re
import warnings
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from decodiff_pipeline.deco.digests import file_sha256
from decodiff_pipeline.deco.weights import CONFIG_FILE, WEIGHTS_FILE
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SIZES = (
    "sample_size",
    "in_channels",
    "base_channels",
    "num_heads",
    "context_dim",
    "norm_groups",
)
SHOWN = 3  # names listed in a message; the rest is a number


def weights_sha256(path: Path) -> str:
    """SHA-256 of a file of weights, in hexadecimal.

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
    """Read a file of ``torch.save`` without running what is pickled in it.

    Tensors, plain containers and ``argparse.Namespace`` are all that it may hold.

    Raises:
        ModelError: It is damaged, of another format, or holds other objects.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _check_sums(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise whatever their bytes happen to mean
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign:
            msg = (
                f"{path} holds a pickled {foreign[1]}, which is refused because unpickling can "
                "run code; where you trust the file, save its dictionary of tensors alone with "
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
    """torch itself does not look at the checksums of its archives."""
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
    """Where the network lies: in a whole model's ``unet``, or the folder itself.

    Raises:
        ModelError: There is none.
    """
    for candidate in (folder / "unet", folder):
        if (candidate / CONFIG_FILE).is_file() and (candidate / WEIGHTS_FILE).is_file():
            return candidate
    raise ModelError(
        f"{folder} holds no network: neither it nor {folder / 'unet'} has {CONFIG_FILE} and "
        f"{WEIGHTS_FILE}; name a saved model or its unet folder"
    )


def read_network_folder(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Configuration and tensors of a saved :class:`DeCoDiffUNet`.

    Not by ``from_pretrained``, which fills what is missing with random numbers.

    Raises:
        ModelError: They cannot be read, or are another network's.
    """
    return read_network_config(folder), read_safetensors(folder / WEIGHTS_FILE)


def read_network_config(folder: Path) -> dict[str, Any]:
    """Configuration of a saved :class:`DeCoDiffUNet`.

    Raises:
        ModelError: It cannot be read, or is another network's.
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
    """Every expected tensor is there, in its shape and finite, and there is no other.

    Args:
        found: What a file holds.
        expected: Shape by name, in the file's names.

    Raises:
        ModelError: The first few tensors that do not fit, and how many they are.
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
    complaints = [f"{len(names)} {kind}: {_few(names)}" for kind, names in wrong.items() if names]
    if complaints:
        raise ModelError(
            f"{source} does not hold this network's {len(expected)} tensors ("
            f"{'; '.join(complaints)}); nothing was taken from it, name a checkpoint of a network "
            "of the same sizes"
        )


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


@contextmanager
def without_warnings() -> Iterator[None]:
    """Without diffusers' warnings of entries that it wrote into a configuration itself."""
    log = logging.getLogger("diffusers.configuration_utils")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def thresholds_beside(folder: Path) -> dict[str, float | None]:
    """Category → image threshold, from ``thresholds.json`` beside a model's folder; else empty."""
    path = folder.absolute().with_name("thresholds.json")
    if not path.is_file():
        return {}
    categories = json.loads(path.read_text(encoding="utf-8"))["categories"]
    return {name: found["threshold"] for name, found in categories.items()}
