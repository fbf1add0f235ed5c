"""What a layout is: it lists the images of one kind of data set on disk."""

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
# The split of good images that the data set keeps for validation: divided into val and calibration.
HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True)
class Record:
    """One image as its layout knows it, before the file is opened."""

    category: str  # what kind of object the image shows
    # "train", "test", …; None for a good image that `data.splits` assigns to a split, `HELD_OUT`
    # for one that goes to val or calibration.
    split: str | None
    label: str  # "good", "defective" or "uncertain"
    defect_type: str  # "good" for good images, else the data set's own word
    path: str  # posix path relative to the raw root
    # Where the mask is, or where it should be and is not; None where the data set has no mask for
    # such an image. A folder where each defect has a mask of its own.
    mask_path: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a new image belongs."""

    path: str  # posix path relative to the raw root
    # Where its mask has to be, by any suffix; None where it needs none.
    mask_path: str | None = None
    # The file that has to name it, relative to the raw root; None where none has to.
    table: str | None = None
    line: str = ""  # what is added to that file

    @classmethod
    def below(cls, root: Path, path: Path, mask: Path | None = None) -> Place:
        """Returns the place of an image and its mask, from paths that begin with `root`."""
        return cls(
            path.relative_to(root).as_posix(),
            mask.relative_to(root).as_posix() if mask is not None else None,
        )


class Layout(ABC):
    """How a data set lies on disk. A subclass with a `name`, in a file of this package, is found.

    Attributes:
        name: What `data.layout` calls it.
        unlabelled: Folders of a category whose images have no label and are left out.
        expects: What to put where, for the error message, as a clause after "this layout expects".
    """

    name: ClassVar[str]
    expects: ClassVar[str]
    unlabelled: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def categories(self, root: Path) -> list[str]:
        """Returns the categories found under `root`, sorted; empty where there are none.

        Raises:
            DataError: A folder has nearly a name that the layout knows, or cannot be listed.
        """

    @abstractmethod
    def records(self, root: Path, category: str) -> Iterator[Record]:
        """Yields every image of `category`, in file order."""

    def place(
        self, root: Path, category: str, file: str, defect_type: str | None, *, test: bool
    ) -> Place:
        """Says where a new image belongs.

        Args:
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
    """Yields a record of each image in a folder.

    Args:
        split: None, `HELD_OUT` or a split.
        mask_of: See `mask_lookup`; None where the data set has no masks for these images.
        recursive: Whether images in folders of the folder count too.
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
    """Returns a function from an image's path, without suffix, to its mask.

    Args:
        masks: As `mask_index` returns them.
        pattern: Where the mask should be if it is missing, "{}" for the image's path.
    """
    return lambda key: masks.get(nfc(key), folder / pattern.format(key))


def mask_index(folder: Path, suffixes: tuple[str, ...] = ("",)) -> dict[str, Path]:
    """Maps an image's path below its own folder, without the file's suffix, to its mask.

    The keys are in the normal form NFC.

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
                masks.setdefault(nfc(key.as_posix()), path)
    return masks
