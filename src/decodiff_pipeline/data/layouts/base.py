"""Base class of the layouts; a layout lists the images of one kind of data set on disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from decodiff_pipeline.data.file_names import nfc
from decodiff_pipeline.data.listing import list_images
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

GOOD = "good"
DEFECTIVE = "defective"
UNCERTAIN = "uncertain"
# Good images that the data set reserves for validation; divided into val and calibration.
HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True)
class Record:
    """One image as listed by its layout, before the file is opened."""

    category: str  # kind of object in the image
    # "train", "test", …; for a good image also None (`data.splits` assigns a split) or `HELD_OUT`
    # (`data.splits` assigns val or calibration).
    split: str | None
    label: str  # "good", "defective" or "uncertain"
    defect_type: str  # "good" for good images, else the name in the data set
    path: str  # posix path relative to the raw root
    # Expected path of the mask, which may be missing; None if the data set has no mask for such an
    # image. A folder if each defect has its own mask.
    mask_path: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Path of a new image, of its mask, and its line in a table."""

    path: str  # posix path relative to the raw root
    # Required path of its mask, with any suffix; None if it needs no mask.
    mask_path: str | None = None
    # Table that must list the image, relative to the raw root; None if there is no table.
    table: str | None = None
    line: str = ""  # line to add to the table

    @classmethod
    def below(cls, root: Path, path: Path, mask: Path | None = None) -> Place:
        """Make a place from the paths of an image and its mask, which begin with `root`."""
        return cls(
            path.relative_to(root).as_posix(),
            mask.relative_to(root).as_posix() if mask is not None else None,
        )


class Layout(ABC):
    """Arrangement of a data set on disk. Subclasses in this package are found by their `name`.

    Attributes:
        name: Value of `data.layout`.
        unlabelled: Subfolders of a category whose images have no label; they are left out.
        expects: Required files, for messages of the form "the layout expects … in <root>".
    """

    name: ClassVar[str]
    expects: ClassVar[str]
    unlabelled: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def categories(self, root: Path) -> list[str]:
        """Categories in `root`, sorted; empty if there are none.

        Raises:
            DataError: A folder name is misspelt, or a folder cannot be listed.
        """

    @abstractmethod
    def records(self, root: Path, category: str) -> Iterator[Record]:
        """Yield the images of `category` in file order."""

    def place(
        self, root: Path, category: str, file: str, defect_type: str | None, *, test: bool
    ) -> Place:
        """Choose the paths of a new image.

        Args:
            defect_type: None for a good image.
            test: Whether a good image goes to test, if the layout has good test images.

        Raises:
            DataError: Images cannot be added to this layout.
        """
        raise DataError(
            f"images cannot be added to the layout '{self.name}' by a command: add the image to "
            f"{root} by hand, as {self.expects}."
        )

    def nothing_here(self, root: Path, what: str) -> DataError:
        """Error for a root that does not exist or does not have this layout."""
        return DataError(f"{what}: the layout '{self.name}' expects {self.expects} in {root}.")


def images_in(
    folder: Path,
    root: Path,
    category: str,
    split: str | None,
    defect_type: str = GOOD,
    *,
    mask_of: Callable[[str], Path] | None = None,
    recursive: bool = False,
) -> Iterator[Record]:
    """Yield a record for each image in a folder.

    Args:
        split: None, `HELD_OUT` or a split.
        mask_of: From `mask_lookup`; None if the data set has no masks for these images.
        recursive: Whether to include images in subfolders.
    """
    for path in list_images(folder, recursive=recursive):
        key = path.relative_to(folder).with_suffix("").as_posix()
        yield Record(
            category=category,
            split=split,
            label=GOOD if defect_type == GOOD else DEFECTIVE,
            defect_type=defect_type,
            path=path.relative_to(root).as_posix(),
            mask_path=mask_of(key).relative_to(root).as_posix() if mask_of else None,
        )


def mask_lookup(folder: Path, masks: Mapping[str, Path], pattern: str) -> Callable[[str], Path]:
    """Return a function from an image path, without suffix, to the path of its mask.

    Args:
        masks: From `mask_index`.
        pattern: Path in `folder` of a mask that is missing, with "{}" for the image path.
    """
    return lambda key: masks.get(nfc(key), folder / pattern.format(key))


def mask_index(folder: Path, suffixes: tuple[str, ...] = ("",)) -> dict[str, Path]:
    """Map image paths to masks.

    The keys are relative to the image folder, without suffix, in Unicode normal form NFC.

    Args:
        folder: Folder of the masks, with the same subfolders as the image folder.
        suffixes: What follows the image's stem in the mask's stem; earlier ones have priority.
    """
    masks: dict[str, Path] = {}
    paths = list_images(folder, recursive=True)
    for suffix in suffixes:
        for path in paths:
            if path.stem.endswith(suffix):
                key = path.relative_to(folder).with_name(
                    path.stem.removesuffix(suffix) or path.stem
                )
                masks.setdefault(nfc(key.as_posix()), path)
    return masks
