"""MVTec AD 2: one public test set with masks, two private ones without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from decodiff_pipeline.data.file_names import nfc, same_name
from decodiff_pipeline.data.folder_names import known_folder
from decodiff_pipeline.data.layouts.base import GOOD, Layout, Place, Record
from decodiff_pipeline.data.layouts.mvtec import TRUTH, categories_with, masked_images
from decodiff_pipeline.data.layouts.mvtec_loco import kept_apart
from decodiff_pipeline.data.listing import subfolders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PUBLIC = "test_public"


class MVTecAD2Layout(Layout):
    """`train/good`, `validation/good`, `test_public/{good,bad,ground_truth/bad/<stem>_mask.png}`.

    The images of `validation/good` are carved into val and calibration, and those of `train/good`
    are all trained on; without a `validation` folder `train/good` is carved. `test_private` and
    `test_private_mixed` have no public labels: they are left out.
    """

    name = "mvtec_ad2"
    expects = (
        "the extracted folders <category>/train/good/, <category>/validation/good/, "
        "<category>/test_public/{good,bad}/ and "
        "<category>/test_public/ground_truth/bad/<stem>_mask.png (MVTec AD 2: download at "
        "mvtec.com/company/research/datasets/mvtec-ad-2)"
    )
    unlabelled = ("test_private", "test_private_mixed")

    def categories(self, root: Path) -> list[str]:
        """Returns the folders that have a `test_public` folder, or `train` and no `test`."""
        found = categories_with(root, "train", "validation", PUBLIC, layout=self.name)
        return [
            name for name in found if not known_folder(known_folder(root, name), "test").is_dir()
        ]

    def records(self, root: Path, category: str) -> Iterator[Record]:
        """Yields `train`, `validation`, then `test_public`."""
        base = known_folder(root, category)
        yield from kept_apart(root, base, category)
        test = known_folder(base, PUBLIC)
        truth = known_folder(test, TRUTH)
        for defect in subfolders(test):
            if same_name(defect) == TRUTH:
                continue
            good = same_name(defect) == GOOD
            yield from masked_images(
                root,
                test / defect,
                category,
                split="test",
                defect_type=GOOD if good else nfc(defect),
                masks=None if good or not truth.is_dir() else known_folder(truth, defect),
            )

    def place(
        self, root: Path, category: str, file: str, defect_type: str | None, *, test: bool
    ) -> Place:
        """Good images go to `train/good` or `test_public/good`, others to `test_public/bad`."""
        base = known_folder(root, category)
        public = known_folder(base, PUBLIC)
        if defect_type is None:
            folder = public if test else known_folder(base, "train")
            return Place.below(root, known_folder(folder, GOOD) / file)
        truth = known_folder(public, TRUTH)
        mask = known_folder(truth, "bad") / f"{file.rsplit('.', 1)[0]}_mask.png"
        path = known_folder(public, "bad") / file
        return Place.below(root, path, mask if truth.is_dir() else None)
