"""One's own images in plain folders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from decodiff_pipeline.data.layouts.base import (
    DEFECTIVE,
    GOOD,
    Layout,
    Place,
    Record,
    list_images,
    mask_index,
    subfolders,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEST_GOOD = "test_good"
MASKS = "masks"


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
        if (root / GOOD).is_dir():
            return [root.name]
        return [name for name in subfolders(root) if (root / name / GOOD).is_dir()]

    def records(self, root: Path, category: str) -> Iterator[Record]:
        """Yields the good images (left to be carved), then `test_good`, then the defects."""
        base = root if (root / GOOD).is_dir() else root / category
        for split, folder in ((None, base / GOOD), ("test", base / TEST_GOOD)):
            for path in list_images(folder, recursive=True):
                yield Record(category, split, GOOD, GOOD, path.relative_to(root).as_posix())
        for defect in subfolders(base):
            if defect in {GOOD, TEST_GOOD, MASKS}:
                continue
            truth = base / MASKS / defect
            masks = mask_index(truth, ("", "_mask"))
            for path in list_images(base / defect, recursive=True):
                key = path.relative_to(base / defect).with_suffix("").as_posix()
                mask = masks.get(key, truth / f"{key}.png") if truth.is_dir() else None
                yield Record(
                    category=category,
                    split="test",
                    label=DEFECTIVE,
                    defect_type=defect,
                    path=path.relative_to(root).as_posix(),
                    mask_path=mask.relative_to(root).as_posix() if mask else None,
                )

    def place(
        self, root: Path, category: str, file: str, defect_type: str | None, *, test: bool
    ) -> Place:
        """Good images go to `good` or `test_good`, others to `<defect type>`."""
        base = "" if (root / GOOD).is_dir() else f"{category}/"
        if defect_type is None:
            return Place(f"{base}{TEST_GOOD if test else GOOD}/{file}")
        masks = f"{base}{MASKS}/{defect_type}"
        mask = f"{masks}/{file.rsplit('.', 1)[0]}.png"
        return Place(f"{base}{defect_type}/{file}", mask if (root / masks).is_dir() else None)
