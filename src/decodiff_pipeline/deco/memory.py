"""Keeping freed memory: large tensors made and dropped at every step cost no page faults."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of the GNU C library
NEVER_TRIM = 2**31 - 1


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
