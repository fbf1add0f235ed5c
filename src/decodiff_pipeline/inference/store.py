"""Stores the results of an inference image by image, so that a killed run can resume."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import filelock

from decodiff_pipeline.data.atomic import append_lines, replacing
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from decodiff_pipeline.inference.config import MapFormat

JOURNAL = "journal.jsonl"
LOCK = ".lock"
MAPS, OVERLAYS = "maps", "overlays"
MAP_SUFFIXES: dict[MapFormat, str | None] = {"png16": ".png", "tiff": ".tiff", "none": None}

Row = dict[str, Any]


class InferenceStore:
    """A folder of results.

    ``maps/`` and ``overlays/`` have a file for each image: its path with a suffix appended.
    ``journal.jsonl`` has a line for each image whose files are complete.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @contextmanager
    def writing(self) -> Iterator[Journal]:
        """Lock the folder, and remove the incomplete files of killed runs.

        Raises:
            DataError: The folder cannot be written, or another run writes to it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self.path / LOCK, timeout=0):
                for folder in (MAPS, OVERLAYS):
                    for leftover in (self.path / folder).rglob(".*.tmp"):
                        leftover.unlink()
                yield Journal(self.path)
        except filelock.Timeout as error:
            raise DataError(
                f"another run is writing to {self.path}; wait for it, or name another folder as "
                "inference.output"
            ) from error
        except OSError as error:
            raise DataError(
                f"cannot write to {self.path} ({error.strerror or error}); correct that or name "
                "another folder as inference.output, then run again: finished images are kept"
            ) from error

    def __repr__(self) -> str:
        return f"InferenceStore({str(self.path)!r})"


class Journal:
    """The rows of finished images.

    Attributes:
        rows: Path of an image → its newest row.

    Args:
        shared: Whether other processes write to the file at the same time.
    """

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        self._folder = folder
        self._file = folder / JOURNAL
        self.rows: dict[str, Row] = {}
        self._files: set[str] = set()
        self._shared = shared
        self.load()

    def is_there(self, name: str | None) -> bool:
        """Whether an output file exists; true for ``None``."""
        return name is None or (self._folder / name).is_file()

    def save(self, name: str, content: bytes) -> None:
        """Write an output file atomically."""
        with replacing(self._folder / name) as temporary:
            temporary.write_bytes(content)

    def record(self, rows: Sequence[Row]) -> None:
        """Add the rows of images whose files are written, and flush them to disk."""
        append_lines(self._file, "".join(map(_line, rows)).encode(), sync=True)
        self._add(rows)

    def finish(self, paths: Iterable[str]) -> list[Row]:
        """Keep the rows of these images, in this order, and remove the files of all others.

        Args:
            paths: Paths of images with a row.
        """
        rows = [self.rows[path] for path in paths]
        for name in sorted(self._files - _output_files(rows)):
            (self._folder / name).unlink(missing_ok=True)
        text = "".join(map(_line, rows))
        if text != self._file.read_text(encoding="utf-8"):
            with replacing(self._file) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return rows

    def load(self) -> None:
        """Read the file, if it exists.

        Raises:
            DataError: It is damaged.
        """
        if not self._file.exists():
            return
        text = self._file.read_text(encoding="utf-8")
        complete = text[: text.rfind("\n") + 1]  # a killed run may leave an incomplete line
        if complete != text and not self._shared:
            os.truncate(self._file, len(complete.encode()))
        try:
            self._add([json.loads(line) for line in complete.splitlines()])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self._file} is damaged ({error}); remove it, and all images are scored again"
            ) from error

    def _add(self, rows: Sequence[Row]) -> None:
        self.rows |= {row["path"]: row for row in rows}
        self._files |= _output_files(rows)


def map_name(path: str, kind: MapFormat) -> str | None:
    """File of an image's map, relative to the folder; ``None`` for no map."""
    suffix = MAP_SUFFIXES[kind]
    return None if suffix is None else f"{MAPS}/{path}{suffix}"


def overlay_name(path: str) -> str:
    """File of an image's overlay, relative to the folder."""
    return f"{OVERLAYS}/{path}.jpg"


def _output_files(rows: Iterable[Row]) -> set[str]:
    names = {row[key] for row in rows for key in ("map", "overlay") if row[key] is not None}
    # `finish` removes files, so an edited journal must not name files elsewhere.
    return {
        name
        for name in names
        if name.startswith((f"{MAPS}/", f"{OVERLAYS}/")) and ".." not in PurePosixPath(name).parts
    }


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"
