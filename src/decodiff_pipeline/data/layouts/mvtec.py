"""MVTec AD, MVTec AD 2, MVTec LOCO AD, MPDD and BTAD: one folder per split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from decodiff_pipeline.data.file_names import nfc, printable, same_name
from decodiff_pipeline.data.layouts.base import (
    BAD_WORDS,
    GOOD,
    GOOD_WORDS,
    HELD_OUT,
    MASK_WORDS,
    SPLIT_WORDS,
    Layout,
    Place,
    Record,
    find_folder,
    has_folder,
    images_in,
    mask_lookup,
    refuse_misspelt,
)
from decodiff_pipeline.data.listing import find_files, subfolders
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TRUTH = "ground_truth"
TRUTH_SYNONYMS = dict.fromkeys(MASK_WORDS, TRUTH)


class MVTecLayout(Layout):
    """`<category>/train/good`, `<category>/test/<good or defect>`, masks in `ground_truth`.

    The mask of `test/<defect>/<stem>.*` is `ground_truth/<defect>/<stem>_mask.*` or `<stem>.*`. A
    category without a `ground_truth` folder has no masks; with one, each defective image needs a
    mask.

    Attributes:
        splits: Folder of a split → its subfolders that are read, None for all. The test folder is
            last.
        good: Folder of good images.
        bad: Folder of added defective images; None for one folder per defect type.
        truth: Path of the mask folder in a category.
        mask_file: Path of a mask in its folder, with "{}" for the image's stem.
        mask_suffixes: As for `mask_lookup`.
    """

    name = "mvtec"
    expects = (
        "the extracted folders <category>/train/good/, <category>/test/<good or defect>/ and "
        "<category>/ground_truth/<defect>/<stem>_mask.png (MVTec AD: register and download at "
        "mvtec.com/company/research/datasets/mvtec-ad)"
    )
    splits: ClassVar[Mapping[str, tuple[str, ...] | None]] = {"train": None, "test": None}
    good: ClassVar[str] = GOOD
    bad: ClassVar[str | None] = None
    truth: ClassVar[tuple[str, ...]] = (TRUTH,)
    mask_file: ClassVar[str] = "{}_mask.png"
    mask_suffixes: ClassVar[tuple[str, ...] | None] = ("_mask", "")

    def categories(self, root: Path) -> list[str]:
        """Folders that have at least one split folder."""
        found = []
        for name in subfolders(root):
            base = root / name
            refuse_misspelt(base, self.splits, SPLIT_WORDS)
            if has_folder(base, *self.splits):
                _refuse_other_layout(base, self.name)
                refuse_misspelt(base, (*self.splits, TRUTH), TRUTH_SYNONYMS)
                for split in self.splits:
                    refuse_misspelt(
                        find_folder(base, split), (GOOD,), dict.fromkeys(GOOD_WORDS, GOOD)
                    )
                found.append(nfc(name))
        return sorted(found)

    def records(self, root: Path, category: str) -> Iterator[Record]:
        """Yield the images by split; without `validation`, good train images have no split yet."""
        base = find_folder(root, category)
        truth = find_folder(base, *self.truth)
        held_out = "validation" in self.splits and has_folder(base, "validation")
        of_good = {"train": "train" if held_out else None, "validation": HELD_OUT}
        for name, wanted in self.splits.items():
            folder, split = find_folder(base, name), "train" if name == "train" else "test"
            for kind in subfolders(folder):
                if folder / kind == truth or (wanted and same_name(kind) not in wanted):
                    continue
                if same_name(kind) == self.good:
                    good = of_good.get(name, split)
                    yield from images_in(folder / kind, root, category, good)
                    continue
                mask_of = None
                if split == "test" and truth.is_dir():
                    masks = find_folder(truth, kind)
                    mask_of = mask_lookup(masks, self.mask_file, self.mask_suffixes)
                defect_type = same_name(kind) if wanted else nfc(kind)
                yield from images_in(
                    folder / kind, root, category, split, defect_type, mask_of=mask_of
                )

    def place(
        self, root: Path, category: str, file: str, defect_type: str | None, *, test: bool
    ) -> Place:
        """Good images go to train or test, defective ones to test."""
        base = find_folder(root, category)
        test_folder = [*self.splits][-1]
        if defect_type is None:
            split = test_folder if test else "train"
            return Place.below(root, find_folder(base, split, self.good) / file)
        defect = self.bad or defect_type
        truth = find_folder(base, *self.truth)
        mask = find_folder(truth, defect) / self.mask_file.format(Path(file).stem)
        path = find_folder(base, test_folder, defect) / file
        return Place.below(root, path, mask if truth.is_dir() else None)


class MVTecLocoLayout(MVTecLayout):
    """MVTec LOCO AD: `validation/good`, and masks in `ground_truth/<defect>/<stem>/`.

    The mask of an image is the union of the masks in its folder. The images of `validation/good`
    are divided into val and calibration, and all of `train/good` are used for training. Without a
    `validation` folder, those of `train/good` are divided.
    """

    name = "mvtec_loco"
    expects = (
        "the extracted folders <category>/train/good/, <category>/validation/good/, "
        "<category>/test/{good,logical_anomalies,structural_anomalies}/ and "
        "<category>/ground_truth/<defect>/<stem>/000.png (MVTec LOCO AD: download at "
        "mvtec.com/company/research/datasets/mvtec-loco)"
    )
    splits: ClassVar = {"train": (GOOD,), "validation": (GOOD,), "test": None}
    mask_file = "{}/000.png"
    mask_suffixes = None


class MVTecAD2Layout(MVTecLayout):
    """MVTec AD 2: `test_public/{good,bad}` with `test_public/ground_truth/bad/<stem>_mask.png`.

    `validation/good` is used as in `MVTecLocoLayout`. `test_private` and `test_private_mixed` have
    no public labels and are left out.
    """

    name = "mvtec_ad2"
    expects = (
        "the extracted folders <category>/train/good/, <category>/validation/good/, "
        "<category>/test_public/{good,bad}/ and "
        "<category>/test_public/ground_truth/bad/<stem>_mask.png (MVTec AD 2: download at "
        "mvtec.com/company/research/datasets/mvtec-ad-2)"
    )
    unlabelled = ("test_private", "test_private_mixed")
    splits: ClassVar = {"train": (GOOD,), "validation": (GOOD,), "test_public": None}
    bad = "bad"
    truth = ("test_public", TRUTH)

    def categories(self, root: Path) -> list[str]:
        """Folders that have at least one split folder and no `test` folder."""
        found = super().categories(root)
        return [name for name in found if not find_folder(root, name, "test").is_dir()]


class BTADLayout(MVTecLayout):
    """BTAD: `<category>/train/ok`, `<category>/test/ok`, `<category>/test/ko`, `ground_truth/ko`.

    The mask of `test/ko/<stem>.*` is `ground_truth/ko/<stem>.png` or `.bmp`.
    """

    name = "btad"
    expects = (
        "the extracted folders <category>/train/ok/, <category>/test/ok/, <category>/test/ko/ and "
        "<category>/ground_truth/ko/<stem>.png or .bmp"
    )
    splits: ClassVar = {"train": ("ok",), "test": ("ok", "ko")}
    good, bad = "ok", "ko"
    mask_file = "{}.png"
    mask_suffixes = ("",)

    def categories(self, root: Path) -> list[str]:
        """Folders that have `ok` or `ko` in `train` or `test`."""
        synonyms = dict.fromkeys(GOOD_WORDS, "ok") | dict.fromkeys(BAD_WORDS, "ko")
        found = []
        for name in subfolders(root):
            base = root / name
            folders = [find_folder(base, split) for split in self.splits]
            refuse_misspelt(base, self.splits, SPLIT_WORDS)
            _refuse_other_layout(base, self.name)
            for folder in folders:
                refuse_misspelt(folder, ("ok", "ko"), synonyms)
            if any(has_folder(folder, "ok", "ko") for folder in folders):
                refuse_misspelt(base, (TRUTH,), TRUTH_SYNONYMS)
                refuse_misspelt(find_folder(base, TRUTH), ("ko",), synonyms)
                found.append(nfc(name))
        return sorted(found)


def _refuse_other_layout(base: Path, layout: str) -> None:
    detected = _detect_layout(base)
    if detected not in {layout, None}:
        raise DataError(
            f"{printable(base)} has the folders of another layout: set data.layout to {detected}."
        )


def _detect_layout(base: Path) -> str | None:
    """The layout that the folders of a category show; None if several are possible."""
    test, truth = find_folder(base, "test"), find_folder(base, TRUTH)
    if has_folder(base, "test_public"):
        return "mvtec_ad2"
    for folder in (find_folder(base, "train"), test):
        if has_folder(folder, "ok") and not has_folder(folder, GOOD) and has_folder(test, "ko"):
            return "btad"
    masks = [find_files(truth / defect) for defect in subfolders(truth)]
    depths = {len(path.relative_to(truth).parts) for found in masks for path in found.images}
    if 3 in depths or has_folder(test, "logical_anomalies", "structural_anomalies"):  # noqa: PLR2004
        return "mvtec_loco"
    return "mvtec" if has_folder(find_folder(base, "train"), GOOD) and depths else None
