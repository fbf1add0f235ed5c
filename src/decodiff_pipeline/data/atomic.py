"""Atomic writes of files, folders and appended lines: complete or not at all."""

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

POLL_S = 0.002  # between two attempts to lock; a write takes less


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write or replace a file atomically; make its folder if it is missing.

    Yields:
        Temporary path to write to. After the block, the file is flushed to disk and renamed to
        ``path``. If the block raises, the file is removed and ``path`` is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the process id: containers that share a folder may all have process id 1.
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
    """Write or replace a whole folder under a temporary name.

    Yields:
        Empty temporary folder, renamed to ``path`` after the block. If the block raises, the
        folder is removed and ``path`` is unchanged.
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
        path: Made if it is missing. Each call opens it again, so that no line is lost if another
            process moves or compresses the file.
        lines: Each with its newline.
        mode: Permissions of a new file, before the umask.
        sync: Whether to flush the lines to disk before returning.

    Raises:
        OSError: The write fails, for example on a full disk; the file is unchanged.
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
    """Append lines to a locked file, all of them or none.

    If the last line of the file is incomplete, a newline is written first.

    Args:
        file: Descriptor, open for reading and appending.
        lines: Each with its newline.

    Raises:
        OSError: The write fails, for example on a full disk; the file is unchanged.
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
