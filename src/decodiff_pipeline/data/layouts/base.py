"""Base class of the layouts, and what they share: folder names, masks, records.

A layout lists the images of one kind of data set on disk. Its folders are found in any case, and a
misspelt one is an error: otherwise "goods" beside "dent" would be a defect type, and "Trian" would
be ignored. Names that a real defect type may have ("gold", "marks") are accepted.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, ClassVar

from decodiff_pipeline.data.file_names import nfc, printable, same_name
from decodiff_pipeline.data.listing import find_files, list_images, subfolders
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

GOOD = "good"
DEFECTIVE = "defective"
UNCERTAIN = "uncertain"
# Good images that the data set reserves for validation; divided into val and calibration.
HELD_OUT = "held_out"

# Words for folders of good images, defective images and masks, without spaces, hyphens and dots.
GOOD_WORDS = frozenset({
    "good", "ok", "okay", "normal", "normals", "nodefect", "nodefects", "defectfree",
    "nondefective", "anomalyfree",
})  # fmt: skip
BAD_WORDS = frozenset({
    "ko", "bad", "ng", "nok", "notok", "defective", "defect", "defects", "anomaly", "anomalies",
    "abnormal",
})  # fmt: skip
MASK_WORDS = frozenset({
    "mask", "masks", "gt", "groundtruth", "groundtruths", "annotation", "annotations",
    "segmentation", "segmentations",
})  # fmt: skip
SPLIT_WORDS = {
    "training": "train", "testing": "test", "val": "validation", "valid": "validation",
}  # fmt: skip
# Additions to the name of a second folder: "good_2", "good (1)", "good - Copy".
COPY_ENDING = re.compile(
    r"\(?\d+\)?|(?:copy|kopie|copie|backup|bak|old|new|images?|imgs?|samples?).*"
)
# Smallest lengths of misspelt words. In shorter words one edit gives another word: "gold", "mass".
MIN_LETTERS_TO_CHANGE = 6
MIN_LETTERS = 4


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

    def not_found_error(self, root: Path, what: str) -> DataError:
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


def mask_lookup(
    folder: Path, pattern: str, suffixes: tuple[str, ...] | None
) -> Callable[[str], Path]:
    """Return a function from an image path, without suffix, to the path of its mask.

    Args:
        folder: Folder of the masks, with the same subfolders as the image folder.
        pattern: Path in `folder` of a mask that is missing, with "{}" for the image path.
        suffixes: What follows the image's stem in the mask's stem; earlier ones have priority.
            None if each image has a folder of masks.
    """
    masks: dict[str, Path] = {}
    if suffixes is None:
        masks = {nfc(name): folder / name for name in subfolders(folder)}
    else:
        paths = list_images(folder, recursive=True)
        for suffix, path in product(suffixes, paths):
            if path.stem.endswith(suffix):
                image = path.with_name(path.stem.removesuffix(suffix) or path.stem)
                masks.setdefault(nfc(image.relative_to(folder).as_posix()), path)
    return lambda key: masks.get(nfc(key), folder / pattern.format(key))


def find_folder(parent: Path, *names: str) -> Path:
    """The folder at `names` below `parent`, found in any case and Unicode normal form.

    Names without such a folder are appended unchanged.

    Raises:
        DataError: As `subfolders`.
    """
    for name in names:
        wanted = same_name(name)
        parent /= next((one for one in subfolders(parent) if same_name(one) == wanted), name)
    return parent


def has_folder(parent: Path, *names: str) -> bool:
    """Whether `parent` has a folder with one of the lower-case `names`, in any case."""
    return bool({same_name(name) for name in subfolders(parent)} & {*names})


def refuse_misspelt(parent: Path, known: Collection[str], synonyms: Mapping[str, str]) -> None:
    """Check that no folder with images has a misspelt name.

    Args:
        known: Names that the layout uses.
        synonyms: Other word, without spaces, hyphens and underscores → name that it means. Words
            for names that are not in `known` are ignored.

    Raises:
        DataError: A name is misspelt; the message has the command that renames the folder.
    """
    for name in subfolders(parent):
        meant = _intended_name(name, known, synonyms)
        if meant is None or meant not in known or not find_files(parent / name).images:
            continue
        existing = find_folder(parent, meant)
        command = f'mv "{printable(parent / name)}" "{printable(parent / meant)}"'
        if existing.is_dir():
            command = f"move its images into {printable(existing)}"
        raise DataError(
            f"the folder {printable(parent / name)} has a name that the layout does not know, and "
            f"{meant!r} seems to be meant: rename it ({command}), or give it a name that is less "
            "like that one."
        )


def _intended_name(name: str, known: Collection[str], synonyms: Mapping[str, str]) -> str | None:
    """The known name that a folder name stands for; None if it is that name, or no other."""
    if same_name(name) in known:
        return None
    word = _without_separators(name)
    if word in synonyms:
        return synonyms[word]
    for one in known:
        target = _without_separators(one)
        rest = word.removeprefix(target)
        if word == target or (len(word) >= MIN_LETTERS and word in _misspelt_forms(target)):
            return one
        if rest != word and COPY_ENDING.fullmatch(rest):
            return one
    return None


def _without_separators(name: str) -> str:
    return re.sub(r"[\s_.\-]+", "", same_name(name))


def _misspelt_forms(word: str) -> set[str]:
    """Misspelt forms: one letter added or two swapped; of longer words also one lost or wrong."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    cuts = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    spellings = {a + c + b for a, b in cuts for c in letters}
    spellings |= {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1}
    if len(word) >= MIN_LETTERS_TO_CHANGE:
        spellings |= {a + b[1:] for a, b in cuts if b}
        spellings |= {a + c + b[1:] for a, b in cuts if b for c in letters}
    return spellings - {word}
