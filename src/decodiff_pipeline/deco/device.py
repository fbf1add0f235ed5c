"""Where a network computes."""

from __future__ import annotations

from typing import Literal

from decodiff_pipeline.errors import ConfigurationError

Device = Literal["auto", "cpu", "cuda", "mps"]


def resolve_device(name: Device = "auto") -> str:
    """The device that PyTorch is given.

    Args:
        name: ``auto`` for the GPU where CUDA has one, else the CPU. Apple's ``mps`` is taken on
            request alone.

    Raises:
        ConfigurationError: There is no such device here.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cpu": lambda: True, "cuda": torch.cuda.is_available}
    there["mps"] = torch.backends.mps.is_available
    if not there[name]():
        raise ConfigurationError(f"there is no device {name!r} here; use 'auto' or 'cpu'")
    return name
