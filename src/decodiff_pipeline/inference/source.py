"""The images to score: a folder, or a manifest that lists them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from decodiff_pipeline.data.decoding import MAX_PIXELS
from decodiff_pipeline.data.images import SUFFIXES, read_bytes
from decodiff_pipeline.data.listing import list_images_to_score, without_system
from decodiff_pipeline.data.tables import read_table, table_path
from decodiff_pipeline.errors import DataError, ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS = ("path", "category", "sha256")
CATEGORY = "set inference.category to one of the model's, or to auto"
LONGEST_NAME = 200  # bytes; file systems take 255, and outputs add suffixes


@dataclass(frozen=True)
class Item:
    """An image to score."""

    path: str  # posix path relative to the source's root
    category: str  # as it was given, not checked yet
    sha256: str = ""  # what the file is to have; empty where nothing was said


class InferenceSource:
    """A handle on a folder of images or on a manifest: cheap to make, reads one image at a time.

    A manifest is a CSV or parquet file with the columns ``path`` (relative to its own folder),
    ``category`` and, if there is one, ``sha256``.

    Args:
        path: The folder or the file. It may itself be a link; nothing below it may.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @property
    def root(self) -> Path:
        """The folder that paths are relative to."""
        return self.path if self.path.is_dir() else self.path.parent

    def items(self, category: str | None, only: str | None = None) -> list[Item]:
        """List the images; no image is opened.

        Args:
            category: Of all images; ``None`` for what the manifest or the folders say.
            only: Of images of which these say nothing: the one that the model knows.

        Raises:
            DataError: There is no image, a path leaves the root or comes twice, or an image has
                no category.
        """
        if not self.path.exists():
            raise DataError(
                f"inference.source {self.path} does not exist; name a folder of images, or a CSV "
                "or parquet file with the columns path and category"
            )
        list_images = self._in_folder if self.path.is_dir() else self._in_manifest
        items = list(list_images(category, only))
        if not items:
            raise DataError(
                f"inference.source {self.path} holds no image; put images "
                f"({', '.join(sorted(SUFFIXES))}) there, or name another source"
            )
        return items

    def read(self, item: Item, max_pixels: int = MAX_PIXELS) -> tuple[bytes, str]:
        """The bytes of an image file and their SHA-256.

        Args:
            max_pixels: No file is larger than this many pixels can make it.

        Raises:
            ImageError: It cannot be read safely, or its SHA-256 is not the manifest's.
        """
        path = self.root / item.path
        if len(path.name.encode()) > LONGEST_NAME:
            raise ImageError(f"{path} has a name of more than {LONGEST_NAME} bytes: shorten it.")
        data = read_bytes(path, root=self.root, max_pixels=max_pixels)
        found = hashlib.sha256(data).hexdigest()
        if item.sha256 and item.sha256.lower() != found:
            raise ImageError(
                f"{path} has the SHA-256 {found[:12]}…, but {self.path.name} says "
                f"{item.sha256[:12]}…: restore the file or correct the manifest."
            )
        return data, found

    def _in_folder(self, category: str | None, only: str | None) -> Iterator[Item]:
        for relative in list_images_to_score(self.path):
            folder, slash, _ = relative.partition("/")
            found = category or (folder if slash else only)
            if found is None:
                raise DataError(
                    f"{self.path / relative} lies in no folder that would name its category; put "
                    f"it into {self.path}/<category>/, or {CATEGORY}"
                )
            yield Item(relative, found)

    def _in_manifest(self, category: str | None, only: str | None) -> Iterator[Item]:
        table = read_table(self.path, COLUMNS)
        needed = ["path"] if category or only else ["path", "category"]
        missing = [name for name in needed if name not in table.columns]
        if missing:
            cure = f"add it, or {CATEGORY}" if missing[0] == "category" else "add it"
            raise DataError(
                f"{self.path} has no column {missing[0]!r} (it has "
                f"{', '.join(table.columns)}); {cure}"
            )
        seen: dict[str, int] = {}
        for line, row in without_system(table).rows:
            path = self._checked(row["path"], line)
            if path in seen:
                raise DataError(f"{self.path}: lines {seen[path]} and {line} both name {path!r}")
            seen[path] = line
            found = category or row.get("category") or only
            if not found:
                raise DataError(f"{self.path}: line {line} ({path!r}) has no category; {CATEGORY}")
            yield Item(path, found, row.get("sha256", ""))

    def _checked(self, text: str, line: int) -> str:
        path = PurePosixPath(table_path(text, self.root))
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise DataError(
                f"{self.path}: the path {text!r} in line {line} is not inside {self.root}; use "
                "paths relative to that folder, inside it"
            )
        return path.as_posix()

    def __repr__(self) -> str:
        return f"InferenceSource({str(self.path)!r})"
