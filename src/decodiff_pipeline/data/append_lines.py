"""Lines that are appended to a file that several processes share, all of them or none."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import filelock

if TYPE_CHECKING:
    from pathlib import Path

POLL_S = 0.002  # between two tries for the lock: a write takes less


def append_lines(path: Path, lines: bytes, *, mode: int = 0o666, sync: bool = False) -> None:
    """Append lines under a lock on the file.

    Args:
        path: The file, made where it is missing. It is opened anew each time, so that whoever
            moves or compresses it loses no line.
        lines: Each with its newline.
        mode: Permissions of a new file, before the umask.
        sync: Whether to wait until they are on the disk.

    Raises:
        OSError: The disk takes no more; the file is as it was.
    """
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        filelock.lock_descriptor(file, poll_interval=POLL_S)  # closing the file releases it
        append_atomically(file, lines)
        if sync:
            os.fsync(file)
    finally:
        os.close(file)


def append_atomically(file: int, lines: bytes) -> None:
    """Append lines to a file that is locked; on a full disk none of them stays.

    A line that another process left unfinished is ended first.

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
