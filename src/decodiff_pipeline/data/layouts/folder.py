"""Images in plain folders, such as one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from decodiff_pipeline.data.file_names import nfc, same_name
from decodiff_pipeline.data.layouts.base import (
    GOOD,
    GOOD_WORDS,
    MASK_WORDS,
    Layout,
    Place,
    Record,
    find_folder,
    has_folder,
    images_in,
    mask_lookup,
    refuse_misspelt,
)
from decodiff_pipeline.data.listing import subfolders

if TYPE_CHECKING:
    from collections.abc import Iterator

TEST_GOOD = "test_good"
MASKS = "masks"
KNOWN = (GOOD, TEST_GOOD, MASKS)
SYNONYMS = (
    dict.fromkeys(GOOD_WORDS, GOOD)
    | dict.fromkeys(("goodtest", "testok", "oktest", "testnormal"), TEST_GOOD)
    | dict.fromkeys(MASK_WORDS, MASKS)
)


class FolderLayout(Layout):
    """`<category>/good`, `<category>/<defect>` and `<category>/masks/<defect>`.

    Only `good` is required. A root with a `good` folder is a single category with the root's name.
    Good images in `<category>/test_good` are used for testing only. Folders may have subfolders;
    `masks/<defect>` then has the same ones as `<defect>`. The mask of `<defect>/<stem>.*` is
    `masks/<defect>/<stem>.*` or `<stem>_mask.*`; a defect type without a folder in `masks` has no
    masks.
    """

    name = "folder"
    expects = (
        "good images in <category>/good/ (or in good/ for a single category) and, if there are "
        "any, defective ones in <category>/<defect>/ with masks in <category>/masks/<defect>/"
    )

    def categories(self, root: Path) -> list[str]:
        """Folders that have a `good` folder, or the root's name if the root has one."""
        if has_folder(root, GOOD):
            refuse_misspelt(root, KNOWN, SYNONYMS)
            return [nfc(root.name)]
        names = subfolders(root)
        found = [name for name in names if has_folder(root / name, GOOD)]
        for name in names:
            known = KNOWN if name in found else (GOOD, TEST_GOOD)
            refuse_misspelt(root / name, known, SYNONYMS)
        if not found:
            refuse_misspelt(root, (GOOD, TEST_GOOD), SYNONYMS)
        return sorted(map(nfc, found))

    def records(self, root: Path, category: str) -> Iterator[Record]:
        """Yield `good` (without a split), then `test_good`, then the defects."""
        base = self._base(root, category)
        for name, split in ((GOOD, None), (TEST_GOOD, "test")):
            yield from images_in(find_folder(base, name), root, category, split, recursive=True)
        for defect in subfolders(base):
            if same_name(defect) in KNOWN:
                continue
            masks = find_folder(base, MASKS, defect)
            mask_of = mask_lookup(masks, "{}.png", ("", "_mask")) if masks.is_dir() else None
            yield from images_in(
                base / defect, root, category, "test", nfc(defect), mask_of=mask_of, recursive=True
            )

    def place(
        self, root: Path, category: str, file: str, defect_type: str | None, *, test: bool
    ) -> Place:
        """Good images go to `good` or `test_good`, defective ones to `<defect type>`."""
        base = self._base(root, category)
        if defect_type is None:
            return Place.below(root, find_folder(base, TEST_GOOD if test else GOOD) / file)
        masks = find_folder(base, MASKS, defect_type)
        mask = masks / f"{Path(file).stem}.png" if masks.is_dir() else None
        return Place.below(root, find_folder(base, defect_type) / file, mask)

    @staticmethod
    def _base(root: Path, category: str) -> Path:
        return root if has_folder(root, GOOD) else find_folder(root, category)
