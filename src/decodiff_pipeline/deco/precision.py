"""Whether to compute in bfloat16: where the machine has it in hardware, on request elsewhere."""

from __future__ import annotations

import logging
from functools import cache
from typing import Literal

import torch

logger = logging.getLogger(__name__)

# As `torch.cpu.get_capabilities` calls what multiplies in bfloat16: x86, x86 with AMX, ARM.
INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


def has_bfloat16(device: torch.device | str) -> bool:
    """Whether a device multiplies in bfloat16 by itself, without emulation.

    A GPU needs compute capability 8.0. A PyTorch too old to tell (before
    ``torch.cpu.get_capabilities``) counts as a processor without it.
    """
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
