"""Where a model comes from, as digests: code, data, autoencoder and the model's own files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from decodiff_pipeline.data.provenance import (
    GitState,
    data_digest,
    dvc_revision,
    git_state,
    sha256_of,
)
from decodiff_pipeline.deco.digests import file_sha256
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "GitState",
    "data_digest",
    "dvc_revision",
    "folder_sha256",
    "git_state",
    "thresholds_digest",
]


def thresholds_digest(thresholds: Mapping[str, Any]) -> str:
    """SHA-256 of the thresholds, whatever the order of their keys."""
    return sha256_of(dict(thresholds))


def folder_sha256(folder: Path) -> str:
    """SHA-256 over the files of a folder in sorted order, with their names.

    Raises:
        ModelError: There is no such folder, or it holds no file.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        msg = f"{folder} holds no file; run `kedro run --pipelines training` to write the model"
        raise ModelError(msg)
    return sha256_of([(p.relative_to(folder).as_posix(), file_sha256(p)) for p in files])
