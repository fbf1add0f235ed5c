"""Released checkpoints with known weights: a function of each tensor's released name and shape."""

from __future__ import annotations

import argparse
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


def known_weight(name: str, shape: Sequence[int]) -> torch.Tensor:
    """The weight of this name in the records of the released code, float32."""
    random = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    if "embedding" in name:
        values = random
    elif len(shape) > 1:
        values = random / np.sqrt(np.prod(shape[1:]))
    else:
        values = 0.1 * random + (0 if name.endswith("bias") else 1)
    return torch.from_numpy(values.astype(np.float32))


@pytest.fixture(scope="session")
def known_weights() -> Callable[[Mapping[str, Sequence[int]]], dict[str, torch.Tensor]]:
    """Returns a function that gives the weights of tensors by name and shape."""
    return lambda shapes: {name: known_weight(name, shape) for name, shape in shapes.items()}


@pytest.fixture(scope="session")
def save_released() -> Callable[..., Path]:
    """Returns a function that saves a checkpoint as the released training script does."""

    def save(path: Path, model: dict[str, torch.Tensor], **args: Any) -> Path:
        torch.save({"model": model, "args": argparse.Namespace(**args)}, path)
        return path

    return save
