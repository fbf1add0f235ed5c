"""Weights that a training starts from, and what the log says of them."""

from __future__ import annotations

import logging
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.training.config import CHAMPION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decodiff_pipeline.deco.initialise import InitialWeights
    from decodiff_pipeline.deco.unet import DeCoDiffUNet

logger = logging.getLogger(__name__)

NAMED = 20  # names that a line of the log has room for


def initialise(unet: DeCoDiffUNet, init_from: str) -> InitialWeights:
    """Give a new network its initial weights, and say what became of them.

    Args:
        unet: The network with random weights.
        init_from: A file or folder.

    Raises:
        ConfigurationError: There is nothing at that path.
        ModelError: The weights cannot be read or do not fit.
    """
    from decodiff_pipeline.deco.initialise import load_initial_weights

    source = existing(init_from)
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
    return weights


def initial_sha256(init_from: str | None) -> str | None:
    """SHA-256 of the weights that :func:`initialise` would take; None for random ones.

    Raises:
        ConfigurationError: There is nothing at that path, or it is the champion, which may be
            another one tomorrow.
        ModelError: There is nothing to take weights from.
    """
    if init_from is None:
        return None
    if init_from == CHAMPION:
        msg = (
            "training.init_from is champion, which moves, so that variants could start from "
            "different weights; give an ablation scratch, or the path of a model"
        )
        raise ConfigurationError(msg)
    from decodiff_pipeline.deco.initialise import weights_file

    file = weights_file(existing(init_from))
    state = file.stat()
    return _sha256(file, state.st_size, state.st_mtime_ns)


@cache
def _sha256(file: Path, _size: int, _modified: int) -> str:
    """The digest of a file as it was then: some gigabytes are read once."""
    from decodiff_pipeline.deco.tensor_files import weights_sha256

    return weights_sha256(file)


def existing(init_from: str) -> Path:
    """The path of weights to start from.

    Raises:
        ConfigurationError: There is nothing.
    """
    source = Path(init_from)
    if not source.exists():
        msg = (
            f"training.init_from is {init_from}, where there is nothing; give an existing file or "
            "folder, champion, or scratch for random weights"
        )
        raise ConfigurationError(msg)
    return source


def _listed(names: Sequence[str]) -> str:
    """All names, or if they are many how many begin alike."""
    if len(names) <= NAMED:
        return ", ".join(names)
    groups = Counter(name.split(".")[0] for name in names)
    return ", ".join(f"{group}.* ({count})" for group, count in groups.most_common())
