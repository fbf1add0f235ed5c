"""Files and folders that are written completely or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
