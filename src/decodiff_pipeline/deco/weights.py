"""Locates an autoencoder's weights and computes their digest; does not import torch."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from decodiff_pipeline.deco.digests import file_sha256
from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.text import Text  # noqa: TC001 (pydantic looks at it)

EMBEDDED = "embedded"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AutoencoderConfig:
    """The autoencoder that encodes images.

    Attributes:
        source: ``"embedded"`` for the weights in the package, a local folder, or a hub id; an
            ``AutoencoderTiny`` or ``AutoencoderKL`` in safetensors.
        subfolder: Folder in the source, such as ``vae`` of a Stable Diffusion repository.
        revision: Hub revision; use a commit hash for reproducible runs.
    """

    source: Text = EMBEDDED
    subfolder: Text | None = None
    revision: Text | None = None


def locate(config: AutoencoderConfig) -> Path:
    """The folder of configuration and weights; downloaded from the hub if necessary.

    Returns:
        A folder with ``config.json`` and ``diffusion_pytorch_model.safetensors``.

    Raises:
        ConfigurationError: They are missing and cannot be downloaded.
    """
    if config.source == EMBEDDED:
        root = Path(str(resources.files("decodiff_pipeline") / "weights" / config.source))
    elif Path(config.source).is_dir():
        root = Path(config.source)
    else:
        root = _from_hub(config)
    folder = root / config.subfolder if config.subfolder else root
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if missing:
        raise ConfigurationError(
            f"autoencoder.source {config.source!r}: {folder} has no {' and no '.join(missing)}"
        )
    return folder


def digest(config: AutoencoderConfig) -> str:
    """SHA-256 over the autoencoder's configuration and weights, in hexadecimal.

    Raises:
        ConfigurationError: See :func:`locate`.
    """
    folder = locate(config)
    sha256 = hashlib.sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        sha256.update(bytes.fromhex(file_sha256(folder / name)))
    return sha256.hexdigest()


def _from_hub(config: AutoencoderConfig) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    prefix = f"{config.subfolder}/" if config.subfolder else ""
    download: dict[str, Any] = {
        "repo_id": config.source,
        "revision": config.revision,
        "allow_patterns": [prefix + CONFIG_FILE, prefix + WEIGHTS_FILE],
    }
    try:
        folder = Path(snapshot_download(**download, local_files_only=True))
        if (folder / prefix / WEIGHTS_FILE).is_file():
            return folder
    except (OSError, ValueError):
        pass  # not downloaded yet
    try:
        # Fails fast without a network, where the download retries for most of a minute.
        HfApi().model_info(config.source, revision=config.revision, timeout=5)
        return Path(snapshot_download(**download))
    except Exception as error:
        command = " ".join(["hf download", config.source, *download["allow_patterns"]])
        raise ConfigurationError(
            f"autoencoder.source {config.source!r} is neither {EMBEDDED!r} nor a "
            f"folder, and the hub gave no such weights ({type(error).__name__}); run `{command}` "
            "where there is a network, or name a folder that holds them"
        ) from error
