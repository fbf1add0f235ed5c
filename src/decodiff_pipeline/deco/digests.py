"""SHA-256 of files, folders, JSON values and networks; does not import torch."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sha256(folder: Path) -> str:
    """SHA-256 over the names and contents of a folder's files, in sorted order.

    Raises:
        ModelError: There is no such folder, or it holds no file.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise ModelError(
            f"{folder} holds no file; run `{kedro_run('training')}` to write the model"
        )
    return sha256_of([(p.relative_to(folder).as_posix(), file_sha256(p)) for p in files])


def sha256_of(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def network_sha256(network: nn.Module) -> str:
    """SHA-256 over the names, types and bytes of a network's weights."""
    import torch

    digest = hashlib.sha256()
    for name, weights in sorted(network.state_dict().items()):
        digest.update(f"{name} {weights.dtype} {tuple(weights.shape)}".encode())
        digest.update(weights.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
