"""MVTec AD, MPDD and every set in their shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from decodiff_pipeline.data.file_names import nfc, printable, same_name
from decodiff_pipeline.data.folder_names import (
    MASK_WORDS,
    SPLIT_WORDS,
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
    mask_index,
)
from decodiff_pipeline.data.listing import find_files, list_images, subfolders
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TRUTH = "ground_truth"


class MVTecLayout(Layout):
    """`<category>/train/good`, `<category>/test/<good or defect>`, masks in `ground_truth`.

    The mask of `test/<defect>/<stem>.*` is `ground_truth/<defect>/<stem>_mask.*` (or without the
    suffix). A category without a `ground_truth` folder has no masks; with one, every defect needs
    its mask.
    """

    name = "mvtec"
    expects = (
        "the extracted folders <category>/train/good/, <category>/test/<good or defect>/ and "
        "<category>/ground_truth/<defect>/<stem>_mask.png (MVTec AD: register and download at "
        "mvtec.com/company/research/datasets/mvtec-ad)"
    )

    def categories(self, root: Path) -> list[str]:
        """Returns the folders that have a `train` or a `test` folder."""
        return categories_with(root, "train", "test", layout=self.name)

    def records(self, root: Path, category: str) -> Iterator[Record]:
        """Yields `train`, then `test`; good train images are left to be carved."""
        base = known_folder(root, category)
        truth = known_folder(base, TRUTH)
        for split in ("train", "test"):
            folder = known_folder(base, split)
            for defect in subfolders(folder):
                good = same_name(defect) == GOOD
                masks = None
                if split == "test" and not good and truth.is_dir():
                    masks = known_folder(truth, defect)
                yield from masked_images(
                    root,
                    folder / defect,
                    category,
                    split=None if split == "train" and good else split,
                    defect_type=GOOD if good else nfc(defect),
                    masks=masks,
                )

    def place(
        self, root: Path, category: str, file: str, defect_type: str | None, *, test: bool
    ) -> Place:
        """Good images go to `train/good` or `test/good`, others to `test/<defect type>`."""
        base = known_folder(root, category)
        folder = known_folder(base, "test" if test or defect_type is not None else "train")
        path = known_folder(folder, defect_type or GOOD) / file
        truth = known_folder(base, TRUTH)
        mask = None
        if defect_type is not None and truth.is_dir():
            mask = known_folder(truth, defect_type) / f"{file.rsplit('.', 1)[0]}_mask.png"
        return Place.below(root, path, mask)


def categories_with(root: Path, *wanted: str, layout: str) -> list[str]:
    """Returns the folders of `root` that have one of the wanted folders, sorted.

    Raises:
        DataError: One has a folder with nearly the name of a split, of `good` or of the masks; or
            the folders of another layout than `layout`.
    """
    found = []
    for name in subfolders(root):
        base = root / name
        refuse_near_misses(base, wanted, SPLIT_WORDS)
        if has_folder(base, *wanted):
            refuse_other_layout(base, layout)
            refuse_near_misses(base, (*wanted, TRUTH), dict.fromkeys(MASK_WORDS, TRUTH))
            for split in wanted:
                refuse_near_misses(known_folder(base, split), (GOOD,), good_words(GOOD))
            found.append(nfc(name))
    return sorted(found)


def masked_images(
    root: Path,
    folder: Path,
    category: str,
    *,
    split: str | None,
    defect_type: str,
    masks: Path | None,
) -> Iterator[Record]:
    """Yields the images of a folder with their masks.

    Args:
        root: The raw root.
        folder: Where the images are.
        category: Theirs.
        split: As in `Record`.
        defect_type: As in `Record`.
        masks: Where `<stem>_mask.*` or `<stem>.*` are; None where there are none.
    """
    index = mask_index(masks, ("_mask", "")) if masks is not None else {}
    for path in list_images(folder):
        mask = None
        if masks is not None:
            mask = index.get(nfc(path.stem), masks / f"{path.stem}_mask.png")
        yield Record(
            category=category,
            split=split,
            label=GOOD if defect_type == GOOD else DEFECTIVE,
            defect_type=defect_type,
            path=path.relative_to(root).as_posix(),
            mask_path=mask.relative_to(root).as_posix() if mask else None,
        )


def refuse_other_layout(base: Path, layout: str) -> None:
    """Refuses a category that is laid out as MVTec AD, one of its successors or BTAD is.

    Raises:
        DataError: It has the folders of another layout than `layout`.
    """
    fits = _layout_of(base)
    if fits not in {layout, None}:
        raise DataError(
            f"{printable(base)} has the folders of another layout: set data.layout to {fits}."
        )


def _layout_of(base: Path) -> str | None:
    """Returns the layout that a category's folders show; None where several are possible."""
    test, truth = known_folder(base, "test"), known_folder(base, TRUTH)
    if has_folder(base, "test_public"):
        return "mvtec_ad2"
    for folder in (known_folder(base, "train"), test):
        if has_folder(folder, "ok") and not has_folder(folder, GOOD) and has_folder(test, "ko"):
            return "btad"
    masks = [find_files(truth / defect) for defect in subfolders(truth)]
    depths = {len(path.relative_to(truth).parts) for found in masks for path in found.images}
    if 3 in depths or has_folder(test, "logical_anomalies", "structural_anomalies"):  # noqa: PLR2004
        return "mvtec_loco"
    return "mvtec" if has_folder(known_folder(base, "train"), GOOD) and depths else None
