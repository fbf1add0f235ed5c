"""What a layout is: how one kind of data set lies on disk, told image by image."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from decodiff_pipeline.data.images import SUFFIXES
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

GOOD = "good"
DEFECTIVE = "defective"
UNCERTAIN = "uncertain"


@dataclass(frozen=True, slots=True)
class Record:
    """One image as its layout knows it, before anybody has opened the file.

    Attributes:
        category: What kind of object the image shows.
        split: "train", "test", … or None for a good image to be carved by `data.splits`.
        label: "good", "defective" or "uncertain".
        defect_type: "good" for good images, else the data set's own word.
        path: Posix path relative to the raw root.
        mask_path: Where the mask is, or where it should be and is not; None where the data set
            has no mask for such an image.
    """

    category: str
    split: str | None
    label: str
    defect_type: str
    path: str
    mask_path: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a new image belongs.

    Attributes:
        path: Posix path relative to the raw root.
        mask_path: Where its mask has to be, by any suffix; None where it needs none.
        table: The file that has to name it, relative to the raw root; None where none has to.
        line: What is added to that file.
    """

    path: str
    mask_path: str | None = None
    table: str | None = None
    line: str = ""


class Layout(ABC):
    """How a data set lies on disk. A subclass with a `name`, in a file of this package, is found.

    Attributes:
        name: What `data.layout` calls it.
        expects: What to put where, for the error message, as a clause after "this layout expects".
    """

    name: ClassVar[str]
    expects: ClassVar[str]

    @abstractmethod
    def categories(self, root: Path) -> list[str]:
        """Returns the categories found under `root`, sorted; empty where there are none."""

    @abstractmethod
    def records(self, root: Path, category: str) -> Iterator[Record]:
        """Yields every image of `category`, in file order."""

    def place(
        self, root: Path, category: str, file: str, defect_type: str | None, *, test: bool
    ) -> Place:
        """Says where a new image belongs.

        Args:
            root: The raw root.
            category: One that is there.
            file: Name of the image file.
            defect_type: None for a good image.
            test: Whether a good image is for testing, where the layout leaves the choice.

        Raises:
            DataError: The layout does not say.
        """
        raise DataError(
            f"images cannot be added to the layout '{self.name}' by a command: add the image to "
            f"{root} by hand, as {self.expects}."
        )

    def nothing_here(self, root: Path, what: str) -> DataError:
        """Returns the error for a root that is not there or does not look as it should."""
        return DataError(f"{what}: the layout '{self.name}' expects {self.expects} in {root}.")


def subfolders(folder: Path) -> list[str]:
    """Returns the names of the visible folders in `folder`, sorted; none if it is not there."""
    if not folder.is_dir():
        return []
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )


def list_images(folder: Path, *, recursive: bool = False) -> list[Path]:
    """Returns the image files in `folder`, sorted, judged by suffix; none if it is not there.

    Other files are left out with a warning that counts them, hidden ones silently.

    Raises:
        DataError: The folder cannot be listed, or, with `recursive`, one below is a link (its
            images would be missed).
    """
    if not folder.is_dir():
        return []
    images: list[Path] = []
    others: list[Path] = []
    for where, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                path = Path(where, name)
                (images if path.suffix.lower() in SUFFIXES else others).append(path)
        if not recursive:
            break
        for name in folders:
            if Path(where, name).is_symlink():
                raise DataError(
                    f"{Path(where, name)} is a link: links are refused inside a data folder, "
                    "put a copy of the folder there instead."
                )
    if others:
        logger.warning(
            "%s: %d files that are no images by their suffix are left out, the first is %s",
            folder,
            len(others),
            min(others).name,
        )
    return sorted(images)


def _refuse(error: OSError) -> None:
    raise DataError(
        f"{error.filename} cannot be listed ({error.strerror}): make the folder readable."
    ) from error


def mask_index(folder: Path, suffixes: tuple[str, ...] = ("",)) -> dict[str, Path]:
    """Maps an image's path below its own folder, without the file's suffix, to its mask.

    Args:
        folder: Where the masks lie, in the same folders as the images.
        suffixes: What follows the image's stem in the mask's; the earlier one wins.
    """
    masks: dict[str, Path] = {}
    paths = list_images(folder, recursive=True)
    for suffix in suffixes:
        for path in paths:
            if path.stem.endswith(suffix):
                key = path.relative_to(folder).with_name(
                    path.stem.removesuffix(suffix) or path.stem
                )
                masks.setdefault(key.as_posix(), path)
    return masks
