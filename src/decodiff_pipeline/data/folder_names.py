"""Folder names of the layouts: found in any case, with an error for misspelt ones.

Without the error, "goods" beside "dent" would be a defect type, and "Trian" would be ignored.
Names that a real defect type may have ("gold", "marks") are accepted.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from decodiff_pipeline.data.file_names import printable, same_name
from decodiff_pipeline.data.listing import find_files, subfolders
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

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
ADDED = re.compile(r"\(?\d+\)?|(?:copy|kopie|copie|backup|bak|old|new|images?|imgs?|samples?).*")
# Smallest lengths of misspelt words. In shorter words one edit gives another word: "gold", "mass".
LETTERS_TO_CHANGE = 6
LETTERS = 4


def known_folder(parent: Path, *names: str) -> Path:
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


def good_words(good: str) -> dict[str, str]:
    """Other words for good images, each mapped to the word of a layout."""
    return dict.fromkeys(GOOD_WORDS, good)


def refuse_near_misses(parent: Path, known: Collection[str], meanings: Mapping[str, str]) -> None:
    """Check that no folder with images has a misspelt name.

    Args:
        known: Names that the layout uses.
        meanings: Other word, without spaces, hyphens and underscores → name that it means. Words
            for names that are not in `known` are ignored.

    Raises:
        DataError: A name is misspelt; the message has the command that renames the folder.
    """
    for name in subfolders(parent):
        meant = _meant(name, known, meanings)
        if meant is None or meant not in known or not find_files(parent / name).images:
            continue
        existing = known_folder(parent, meant)
        command = f'mv "{printable(parent / name)}" "{printable(parent / meant)}"'
        if existing.is_dir():
            command = f"move its images into {printable(existing)}"
        raise DataError(
            f"the folder {printable(parent / name)} has a name that the layout does not know, and "
            f"{meant!r} seems to be meant: rename it ({command}), or give it a name that is less "
            "like that one."
        )


def _meant(name: str, known: Collection[str], meanings: Mapping[str, str]) -> str | None:
    """The known name that a folder name stands for; None if it is that name, or no other."""
    if same_name(name) in known:
        return None
    word = _squeezed(name)
    if word in meanings:
        return meanings[word]
    for one in known:
        target = _squeezed(one)
        rest = word.removeprefix(target)
        if word == target or (len(word) >= LETTERS and word in _edits(target)):
            return one
        if rest != word and ADDED.fullmatch(rest):
            return one
    return None


def _squeezed(name: str) -> str:
    return re.sub(r"[\s_.\-]+", "", same_name(name))


def _edits(word: str) -> Iterable[str]:
    """Misspelt forms: one letter added or two swapped; of longer words also one lost or wrong."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    cuts = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    slips = {a + c + b for a, b in cuts for c in letters}
    slips |= {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1}
    if len(word) >= LETTERS_TO_CHANGE:
        slips |= {a + b[1:] for a, b in cuts if b}
        slips |= {a + c + b[1:] for a, b in cuts if b for c in letters}
    return slips - {word}
