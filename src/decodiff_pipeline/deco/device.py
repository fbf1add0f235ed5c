"""The device that computes: which one, whether in bfloat16, and how it keeps freed memory."""

from __future__ import annotations

import ctypes
import logging
import sys
from functools import cache
from typing import TYPE_CHECKING, Literal

from decodiff_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda", "mps"]
# As `torch.cpu.get_capabilities` calls what multiplies in bfloat16: x86, x86 with AMX, ARM.
INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of the GNU C library
NEVER_TRIM = 2**31 - 1


_preferred = ["auto"]
_compiled = [False]


def prefer_device(name: str) -> None:
    """Say what :func:`resolve_device` makes of ``auto`` in this process from now on.

    Args:
        name: A :data:`Device`, or one GPU, such as ``cuda:1``.
    """
    _preferred[0] = name


def prefer_compiled(compiled: bool) -> None:
    """Say whether :func:`compile_where_preferred` compiles in this process from now on."""
    _compiled[0] = compiled


def is_compiled_preferred() -> bool:
    """What :func:`prefer_compiled` was told; false without that."""
    return _compiled[0]


def compile_where_preferred(network: torch.nn.Module) -> None:
    """Have a network compiled in place by ``torch.compile`` at its first passes, if so told.

    Weights, their names and what is saved stay the same.
    """
    if _compiled[0]:
        network.compile()


def to_device(
    tensor: torch.Tensor, device: torch.device | str, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Copy a tensor from the CPU without waiting for the device.

    PyTorch waits for all that a GPU has to do before it copies memory that is not pinned.
    """
    tensor = tensor.to(dtype or tensor.dtype)
    pinned = str(device).startswith("cuda") and tensor.device.type == "cpu"
    return (tensor.pin_memory() if pinned else tensor).to(device, non_blocking=pinned)


def resolve_device(name: str = "auto") -> str:
    """The device that PyTorch is given.

    Args:
        name: A :data:`Device`. ``auto`` is what :func:`prefer_device` was told; without that the
            GPU where CUDA has one, else the CPU. Apple's ``mps`` is taken on request alone.

    Raises:
        ConfigurationError: There is no such device here.
    """
    import torch

    name = _preferred[0] if name == "auto" else name
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cpu": lambda: True, "cuda": torch.cuda.is_available}
    there["mps"] = torch.backends.mps.is_available
    if not there[name.split(":")[0]]():
        raise ConfigurationError(f"there is no device {name!r} here; use 'auto' or 'cpu'")
    return name


def has_bfloat16(device: torch.device | str) -> bool:
    """Whether a device multiplies in bfloat16 by itself, without emulation.

    A GPU needs compute capability 8.0. A PyTorch too old to tell (before
    ``torch.cpu.get_capabilities``) counts as a processor without it.
    """
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in INSTRUCTIONS)


def resolve_bfloat16(wanted: bool | Literal["auto"], device: torch.device | str) -> bool:
    """What a parameter ``bfloat16`` comes to on a device.

    Args:
        wanted: ``auto`` for bfloat16 where the device has it; True is obeyed, with a warning
            where it is emulated.
    """
    import torch

    available = has_bfloat16(device)
    if wanted is True and not available:
        _warn(torch.device(device).type)
    return available if wanted == "auto" else wanted


@cache  # once, not at every step
def _warn(device: str) -> None:
    logger.warning(
        "bfloat16 is asked for, but this %s has no instructions for it: emulated, it is about ten "
        "times slower than float32; auto uses it only where it is there",
        device,
    )


@cache
def keep_freed_memory() -> bool:
    """Let the C library reuse large blocks instead of returning them to the system at once.

    By default glibc maps every large block anew, and the kernel clears its pages at the first
    touch: for the attention weights of a training step that took longer than computing them. The
    process keeps its largest size until it ends. Where the C library is another one, and on
    Linux alone does it know this call, nothing happens; a GPU's memory is not concerned.

    Returns:
        Whether the setting was taken.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, NEVER_TRIM))
