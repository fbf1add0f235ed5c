"""Device selection, bfloat16 support, compilation and the allocator of this process."""

from __future__ import annotations

import ctypes
import logging
import sys
from functools import cache
from typing import TYPE_CHECKING, Literal

from decodiff_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

logger = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda", "mps"]
# Names in `torch.cpu.get_capabilities` of bfloat16 instructions: x86, x86 with AMX, ARM.
INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of the GNU C library
NEVER_TRIM = 2**31 - 1


_preferred = ["auto"]
_compiled = [False]


def prefer_device(name: str) -> None:
    """Set the device that :func:`resolve_device` returns for ``auto`` in this process.

    Args:
        name: A :data:`Device`, or one GPU, such as ``cuda:1``.
    """
    _preferred[0] = name


def prefer_compiled(compiled: bool) -> None:
    """Set whether :func:`compile_where_preferred` compiles networks in this process."""
    _compiled[0] = compiled


def is_compiled_preferred() -> bool:
    """The value set by :func:`prefer_compiled`; False by default."""
    return _compiled[0]


def compile_where_preferred(network: torch.nn.Module) -> None:
    """Compile a network in place by ``torch.compile``, if :func:`prefer_compiled` asked for it.

    Compilation happens in the first forward passes. Names of weights and saved files do not change.
    """
    if _compiled[0]:
        network.compile()


def to_device(
    tensor: torch.Tensor, device: torch.device | str, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Copy a tensor to a device; from the CPU to a GPU through pinned memory, without blocking.

    A copy from unpinned memory waits until the GPU has finished its queue.
    """
    tensor = tensor.to(dtype or tensor.dtype)
    pinned = str(device).startswith("cuda") and tensor.device.type == "cpu"
    return (tensor.pin_memory() if pinned else tensor).to(device, non_blocking=pinned)


def resolve_device(name: str = "auto") -> str:
    """The name of the device to compute on, as PyTorch takes it.

    Args:
        name: A :data:`Device`. ``auto`` is the device set by :func:`prefer_device`, by default
            ``cuda`` if available, else ``cpu``. Apple's ``mps`` is used on request only.

    Raises:
        ConfigurationError: The device is not available.
    """
    import torch

    name = _preferred[0] if name == "auto" else name
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    available: dict[str, Callable[[], bool]] = {
        "cpu": lambda: True,
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if not available[name.split(":")[0]]():
        raise ConfigurationError(f"there is no device {name!r} here; use 'auto' or 'cpu'")
    return name


def has_bfloat16(device: torch.device | str) -> bool:
    """Whether a device has bfloat16 instructions; emulation does not count.

    A GPU needs compute capability 8.0. For a CPU the answer is False if PyTorch has no
    ``torch.cpu.get_capabilities``.
    """
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in INSTRUCTIONS)


def resolve_bfloat16(wanted: bool | Literal["auto"], device: torch.device | str) -> bool:
    """Whether to use bfloat16 on a device.

    Args:
        wanted: A parameter ``bfloat16``. ``auto`` uses it if the device has instructions for it.
            True uses it in any case, with a warning if it is emulated.
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
        "times slower than float32; use auto",
        device,
    )


@cache
def keep_freed_memory() -> bool:
    """Let glibc reuse large memory blocks instead of returning them to the system.

    By default glibc maps every large block anew and the kernel zeroes its pages at first access.
    For the attention weights of a training step this took longer than their computation. The
    process then keeps its peak memory until it ends. The call does nothing on systems other than
    Linux or with another C library. GPU memory is not affected.

    Returns:
        Whether the setting was accepted.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, NEVER_TRIM))
