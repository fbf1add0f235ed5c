"""Sources of images to score: a folder, or a manifest."""

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
LONGEST_NAME = 200  # bytes; file systems allow 255, and output files have suffixes


@dataclass(frozen=True)
class Item:
    """An image to score."""

    path: str  # POSIX, relative to the source's root
    category: str  # not validated
    sha256: str = ""  # expected digest of the file; empty if unknown


class InferenceSource:
    """A folder of images, or a manifest: a CSV or parquet file that lists images.

    A manifest has the columns ``path`` (relative to its folder), ``category`` and, optionally,
    ``sha256``.

    Args:
        path: The folder or the file. It may be a symbolic link; paths below it must not be.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @property
    def root(self) -> Path:
        """The folder that paths are relative to."""
        return self.path if self.path.is_dir() else self.path.parent

    def items(self, category: str | None, only: str | None = None) -> list[Item]:
        """List the images without opening them.

        Args:
            category: Category of all images; ``None``: from the manifest or the folders.
            only: Category of images without one: the only category that the model knows.

        Raises:
            DataError: There is no image, a path is outside of the root or occurs twice, or an
                image has no category.
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
            max_pixels: Maximum number of pixels, which limits the size of a file.

        Raises:
            ImageError: It cannot be read safely, or its SHA-256 differs from the manifest's.
        """
        path = self.root / item.path
        if len(path.name.encode()) > LONGEST_NAME:
            raise ImageError(f"{path} has a name of more than {LONGEST_NAME} bytes: shorten it.")
        data = read_bytes(path, root=self.root, max_pixels=max_pixels)
        sha256 = hashlib.sha256(data).hexdigest()
        if item.sha256 and item.sha256.lower() != sha256:
            raise ImageError(
                f"{path} has the SHA-256 {sha256[:12]}…, but {self.path.name} says "
                f"{item.sha256[:12]}…: restore the file or correct the manifest."
            )
        return data, sha256

    def _in_folder(self, category: str | None, only: str | None) -> Iterator[Item]:
        for relative in list_images_to_score(self.path):
            folder, slash, _ = relative.partition("/")
            name = category or (folder if slash else only)
            if name is None:
                raise DataError(
                    f"{self.path / relative} lies in no folder that would name its category; put "
                    f"it into {self.path}/<category>/, or {CATEGORY}"
                )
            yield Item(relative, name)

    def _in_manifest(self, category: str | None, only: str | None) -> Iterator[Item]:
        table = read_table(self.path, COLUMNS)
        required = ["path"] if category or only else ["path", "category"]
        missing = [name for name in required if name not in table.columns]
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
            name = category or row.get("category") or only
            if not name:
                raise DataError(f"{self.path}: line {line} ({path!r}) has no category; {CATEGORY}")
            yield Item(path, name, row.get("sha256", ""))

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
