"""Files, folders and appended lines that are written completely or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

import filelock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POLL_S = 0.002  # between two tries for the lock: a write takes less


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Writes or replaces a file under a temporary name; its folder is made if it is missing.

    Yields:
        Where to write. After the block it is flushed to the disk and renamed to ``path``; if the
        block raises, it is removed and ``path`` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not by the process id: servers in containers share a folder, and each is number 1.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Writes or replaces a folder as a whole, under a temporary name.

    Yields:
        An empty folder to write into. If the block raises, it is removed and ``path`` stays as
        it was.
    """
    temporary, retired = (path.with_name(f".{path.name}.{kind}") for kind in ("new", "old"))
    if retired.exists() and not path.exists():
        retired.rename(path)  # a run was killed between the two renames below
    for leftover in (temporary, retired):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if path.exists():
            path.rename(retired)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(retired, ignore_errors=True)


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
