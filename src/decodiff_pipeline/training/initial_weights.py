"""Weights that a training starts from, and what the log says of them."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.deco.initialise import load_initial_weights
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
    source = Path(init_from)
    if not source.exists():
        msg = (
            f"training.init_from is {init_from}, where there is nothing; give an existing file or "
            "folder, or null for random weights"
        )
        raise ConfigurationError(msg)
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


def _listed(names: Sequence[str]) -> str:
    """All names, or if they are many how many begin alike."""
    if len(names) <= NAMED:
        return ", ".join(names)
    groups = Counter(name.split(".")[0] for name in names)
    return ", ".join(f"{group}.* ({count})" for group, count in groups.most_common())
