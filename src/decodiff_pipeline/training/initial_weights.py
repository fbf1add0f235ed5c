"""Weights that a training starts from, and what the log says of them."""

from __future__ import annotations

import logging
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decodiff_pipeline.deco.unet import DeCoDiffUNet

logger = logging.getLogger(__name__)

NAMED = 20  # names that a line of the log has room for


def initialise(unet: DeCoDiffUNet, init_from: str | None) -> dict[str, Any]:
    """Give a new network its initial weights, if there are any.

    Args:
        unet: The network with random weights.
        init_from: ``training.init_from``: a file or folder, or None.

    Returns:
        What this adds to the identity of the run: ``init_from_sha256``, if there are weights.

    Raises:
        ConfigurationError: There is nothing at that path.
        ModelError: The weights cannot be read or do not fit.
    """
    if init_from is None:
        return {}
    from decodiff_pipeline.deco.initialise import load_initial_weights

    source = _existing(init_from)
    weights = load_initial_weights(unet, source)
    logger.info(
        "initial weights: %d tensors of %s (SHA-256 %s)",
        len(weights.used), source, weights.sha256,
    )  # fmt: skip
    for kind, names in (
        ("not used, of the file", weights.unused),
        ("left as they were, of the network", weights.untouched),
    ):
        if names:
            logger.info("%s: %d tensors: %s", kind, len(names), _listed(names))
    return {"init_from_sha256": weights.sha256}


def initial_sha256(init_from: str | None) -> str | None:
    """SHA-256 of the weights that :func:`initialise` would take; None for random ones.

    Raises:
        ConfigurationError: There is nothing at that path.
        ModelError: There is nothing to take weights from.
    """
    if init_from is None:
        return None
    from decodiff_pipeline.deco.initialise import weights_file

    file = weights_file(_existing(init_from))
    state = file.stat()
    return _sha256(file, state.st_size, state.st_mtime_ns)


@cache
def _sha256(file: Path, _size: int, _modified: int) -> str:
    """The digest of a file as it was then: some gigabytes are read once."""
    from decodiff_pipeline.deco.tensor_files import weights_sha256

    return weights_sha256(file)


def _existing(init_from: str) -> Path:
    source = Path(init_from)
    if not source.exists():
        msg = (
            f"training.init_from is {init_from}, where there is nothing; give an existing file or "
            "folder, or null for random weights"
        )
        raise ConfigurationError(msg)
    return source


def _listed(names: Sequence[str]) -> str:
    """All names, or if they are many how many begin alike."""
    if len(names) <= NAMED:
        return ", ".join(names)
    groups = Counter(name.split(".")[0] for name in names)
    return ", ".join(f"{group}.* ({count})" for group, count in groups.most_common())
