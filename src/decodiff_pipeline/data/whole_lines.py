"""Lines that are added to a file whole or not at all."""

from __future__ import annotations

import errno
import os


def write_whole(file: int, lines: bytes) -> None:
    """Add lines at the end of a file that is locked; on a full disk none of them stays.

    A line that somebody left unfinished is ended first, so that it swallows none of these.

    Args:
        file: Descriptor, open for reading and appending.
        lines: Each with its newline.

    Raises:
        OSError: The disk takes no more; the file is as it was.
    """
    before = os.fstat(file).st_size
    if lines and before and os.pread(file, 1, before - 1) != b"\n":
        lines = b"\n" + lines
    try:
        if os.write(file, lines) < len(lines):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        os.ftruncate(file, before)
        raise
