"""Where an autoencoder's weights are, and which weights they are; importing this costs no torch."""

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
    """Which autoencoder makes the latents.

    Attributes:
        source: ``"embedded"`` for the weights that come with the package,
            a local folder, or a hub id. It must be an ``AutoencoderTiny`` or ``AutoencoderKL`` in
            safetensors.
        subfolder: Folder inside the source, such as ``vae`` of a Stable Diffusion repository.
        revision: Hub revision; a commit hash makes a run repeatable.
    """

    source: Text = EMBEDDED
    subfolder: Text | None = None
    revision: Text | None = None


def locate(config: AutoencoderConfig) -> Path:
    """Folder with the configuration and the weights, downloaded from the hub if need be.

    Returns:
        A folder that holds ``config.json`` and ``diffusion_pytorch_model.safetensors``.

    Raises:
        ConfigurationError: They are not there and cannot be had.
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
        ConfigurationError: As :func:`locate`.
    """
    folder = locate(config)
    total = hashlib.sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        total.update(bytes.fromhex(file_sha256(folder / name)))
    return total.hexdigest()


def _from_hub(config: AutoencoderConfig) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    prefix = f"{config.subfolder}/" if config.subfolder else ""
    wanted: dict[str, Any] = {
        "repo_id": config.source,
        "revision": config.revision,
        "allow_patterns": [prefix + CONFIG_FILE, prefix + WEIGHTS_FILE],
    }
    try:
        folder = Path(snapshot_download(**wanted, local_files_only=True))
        if (folder / prefix / WEIGHTS_FILE).is_file():
            return folder
    except (OSError, ValueError):
        pass  # not downloaded yet
    try:
        # Asked first because the download itself retries for most of a minute without a network.
        HfApi().model_info(config.source, revision=config.revision, timeout=5)
        return Path(snapshot_download(**wanted))
    except Exception as error:
        command = " ".join(["hf download", config.source, *wanted["allow_patterns"]])
        raise ConfigurationError(
            f"autoencoder.source {config.source!r} is neither {EMBEDDED!r} nor a "
            f"folder, and the hub gave no such weights ({type(error).__name__}); run `{command}` "
            "where there is a network, or name a folder that holds them"
        ) from error
