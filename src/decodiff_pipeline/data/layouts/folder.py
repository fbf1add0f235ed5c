"""One's own images in plain folders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from decodiff_pipeline.data.file_names import nfc, same_name
from decodiff_pipeline.data.folder_names import (
    MASK_WORDS,
    good_words,
    has_folder,
    known_folder,
    refuse_near_misses,
)
from decodiff_pipeline.data.layouts.base import (
    DEFECTIVE,
    GOOD,
    Layout,
    Place,
    Record,
    good_images,
    mask_index,
)
from decodiff_pipeline.data.listing import list_images, subfolders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEST_GOOD = "test_good"
MASKS = "masks"
KNOWN = (GOOD, TEST_GOOD, MASKS)
MEANINGS = (
    good_words(GOOD)
    | dict.fromkeys(("goodtest", "testok", "oktest", "testnormal"), TEST_GOOD)
    | dict.fromkeys(MASK_WORDS, MASKS)
)


class FolderLayout(Layout):
    """`<category>/good`, `<category>/<defect>` and `<category>/masks/<defect>`.

    Only `good` is needed. A root with a `good` folder of its own is one category, called as the
    root. Good images that are for testing, never for training, go to `<category>/test_good`. The
    folders may have folders in them, `masks/<defect>` then the same ones as `<defect>`. The mask
    of `<defect>/<stem>.*` is `masks/<defect>/<stem>.*` or `<stem>_mask.*`; a defect without a
    folder in `masks` has no masks.
    """

    name = "folder"
    expects = (
        "good images in <category>/good/ (or in good/ for a single category) and, if there are "
        "any, defective ones in <category>/<defect>/ with masks in <category>/masks/<defect>/"
    )

    def categories(self, root: Path) -> list[str]:
        """Returns the folders that have a `good` folder, or the root's name if it has one."""
        if has_folder(root, GOOD):
            refuse_near_misses(root, KNOWN, MEANINGS)
            return [nfc(root.name)]
        names = subfolders(root)
        found = [name for name in names if has_folder(root / name, GOOD)]
        for name in names:
            known = KNOWN if name in found else (GOOD, TEST_GOOD)
            refuse_near_misses(root / name, known, MEANINGS)
        if not found:
            refuse_near_misses(root, (GOOD, TEST_GOOD), MEANINGS)
        return sorted(map(nfc, found))

    def records(self, root: Path, category: str) -> Iterator[Record]:
        """Yields the good images (left to be carved), then `test_good`, then the defects."""
        base = self._base(root, category)
        yield from good_images(root, known_folder(base, GOOD), category, None, recursive=True)
        yield from good_images(
            root, known_folder(base, TEST_GOOD), category, "test", recursive=True
        )
        for defect in subfolders(base):
            if same_name(defect) in KNOWN:
                continue
            truth = known_folder(known_folder(base, MASKS), defect)
            masks = mask_index(truth, ("", "_mask"))
            for path in list_images(base / defect, recursive=True):
                key = path.relative_to(base / defect).with_suffix("").as_posix()
                mask = masks.get(nfc(key), truth / f"{key}.png")
                yield Record(
                    category=category,
                    split="test",
                    label=DEFECTIVE,
                    defect_type=nfc(defect),
                    path=path.relative_to(root).as_posix(),
                    mask_path=mask.relative_to(root).as_posix() if truth.is_dir() else None,
                )

    def place(
        self, root: Path, category: str, file: str, defect_type: str | None, *, test: bool
    ) -> Place:
        """Good images go to `good` or `test_good`, others to `<defect type>`."""
        base = self._base(root, category)
        if defect_type is None:
            return Place.below(root, known_folder(base, TEST_GOOD if test else GOOD) / file)
        masks = known_folder(known_folder(base, MASKS), defect_type)
        mask = masks / f"{file.rsplit('.', 1)[0]}.png"
        path = known_folder(base, defect_type) / file
        return Place.below(root, path, mask if masks.is_dir() else None)

    @staticmethod
    def _base(root: Path, category: str) -> Path:
        return root if has_folder(root, GOOD) else known_folder(root, category)
