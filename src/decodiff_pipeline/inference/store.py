"""The results of an inference on disk, image by image, so that a killed run goes on."""

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
    """A handle on a folder of results: cheap to make.

    ``maps/`` and ``overlays/`` hold a file for each image under the image's own path, with a
    suffix appended. ``journal.jsonl`` has a line for each image whose files are complete.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @contextmanager
    def writing(self) -> Iterator[Journal]:
        """Hold the folder for this process alone, and clear what a killed run left half done.

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
                "another folder as inference.output, then run again: what was finished is kept"
            ) from error

    def __repr__(self) -> str:
        return f"InferenceStore({str(self.path)!r})"


class Journal:
    """What is finished in a folder of results.

    Attributes:
        rows: Path of an image → its row, the newest where there were several.

    Args:
        shared: Whether other processes write to it meanwhile.
    """

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        self._folder = folder
        self._file = folder / JOURNAL
        self.rows: dict[str, Row] = {}
        self._files: set[str] = set()
        self._shared = shared
        self.load()

    def is_there(self, name: str | None) -> bool:
        """Whether an output file is where its row says; true where the row names none."""
        return name is None or (self._folder / name).is_file()

    def save(self, name: str, content: bytes) -> None:
        """Write an output file, whole or not at all."""
        with replacing(self._folder / name) as temporary:
            temporary.write_bytes(content)

    def record(self, rows: Sequence[Row]) -> None:
        """Add the rows of images whose files are all written; they survive a power cut."""
        append_lines(self._file, "".join(map(_line, rows)).encode(), sync=True)
        self._take(rows)

    def finish(self, paths: Iterable[str]) -> list[Row]:
        """Keep these images' rows, in this order, and remove the files of all others.

        Args:
            paths: Of images that have a row.
        """
        kept = [self.rows[path] for path in paths]
        for name in sorted(self._files - _named(kept)):
            (self._folder / name).unlink(missing_ok=True)
        text = "".join(map(_line, kept))
        if text != self._file.read_text(encoding="utf-8"):
            with replacing(self._file) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return kept

    def load(self) -> None:
        """Take what is in the file, where there is one.

        Raises:
            DataError: It is damaged.
        """
        if not self._file.exists():
            return
        text = self._file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # a killed run may have left half a line
        if whole != text and not self._shared:
            os.truncate(self._file, len(whole.encode()))
        try:
            self._take([json.loads(line) for line in whole.splitlines()])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self._file} is damaged ({error}); remove it, and all images are scored again"
            ) from error

    def _take(self, rows: Iterable[Row]) -> None:
        rows = list(rows)
        self.rows |= {row["path"]: row for row in rows}
        self._files |= _named(rows)


def map_name(path: str, kind: MapFormat) -> str | None:
    """Where the map of an image goes, relative to the folder; ``None`` for no map."""
    suffix = MAP_SUFFIXES[kind]
    return None if suffix is None else f"{MAPS}/{path}{suffix}"


def overlay_name(path: str) -> str:
    """Where the overlay of an image goes, relative to the folder."""
    return f"{OVERLAYS}/{path}.jpg"


def _named(rows: Iterable[Row]) -> set[str]:
    names = {row[key] for row in rows for key in ("map", "overlay") if row[key] is not None}
    # They will be removed one day: a journal that somebody edited must not lead elsewhere.
    return {
        name
        for name in names
        if name.startswith((f"{MAPS}/", f"{OVERLAYS}/")) and ".." not in PurePosixPath(name).parts
    }


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"
