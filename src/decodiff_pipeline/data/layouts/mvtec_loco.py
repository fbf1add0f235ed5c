"""MVTec LOCO AD: logical and structural anomalies, several masks an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from decodiff_pipeline.data.file_names import nfc, same_name
from decodiff_pipeline.data.folder_names import has_folder, known_folder
from decodiff_pipeline.data.layouts.base import (
    DEFECTIVE,
    GOOD,
    HELD_OUT,
    Layout,
    Place,
    Record,
    good_images,
)
from decodiff_pipeline.data.layouts.mvtec import TRUTH, categories_with
from decodiff_pipeline.data.listing import list_images, subfolders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class MVTecLocoLayout(Layout):
    """`train/good`, `validation/good`, `test/<good or defect>`, `ground_truth/<defect>/<stem>/`.

    An image's mask is the union of the images in its folder of `ground_truth`. A category without
    a `ground_truth` folder has no masks. The images of `validation/good` are carved into val and
    calibration, and those of `train/good` are all trained on; without a `validation` folder
    `train/good` is carved.
    """

    name = "mvtec_loco"
    expects = (
        "the extracted folders <category>/train/good/, <category>/validation/good/, "
        "<category>/test/{good,logical_anomalies,structural_anomalies}/ and "
        "<category>/ground_truth/<defect>/<stem>/000.png (MVTec LOCO AD: download at "
        "mvtec.com/company/research/datasets/mvtec-loco)"
    )

    def categories(self, root: Path) -> list[str]:
        """Returns the folders that have a `train` or a `test` folder."""
        return categories_with(root, "train", "validation", "test", layout=self.name)

    def records(self, root: Path, category: str) -> Iterator[Record]:
        """Yields `train`, `validation`, then `test`."""
        base = known_folder(root, category)
        yield from kept_apart(root, base, category)
        test, truth = known_folder(base, "test"), known_folder(base, TRUTH)
        for defect in subfolders(test):
            if same_name(defect) == GOOD:
                yield from good_images(root, test / defect, category, "test")
                continue
            masks = known_folder(truth, defect)
            folders = {nfc(name): masks / name for name in subfolders(masks)}
            for path in list_images(test / defect):
                mask = folders.get(nfc(path.stem), masks / path.stem / "000.png")
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
        """Good images go to `train/good` or `test/good`, others to `test/<defect type>`."""
        base = known_folder(root, category)
        folder = known_folder(base, "test" if test or defect_type is not None else "train")
        truth = known_folder(base, TRUTH)
        mask = None
        if defect_type is not None and truth.is_dir():
            mask = known_folder(truth, defect_type) / file.rsplit(".", 1)[0] / "000.png"
        return Place.below(root, known_folder(folder, defect_type or GOOD) / file, mask)


def kept_apart(root: Path, base: Path, category: str) -> Iterator[Record]:
    """Yields `train/good`, and `validation/good` where the data set has one."""
    held_out = has_folder(base, "validation")
    train = known_folder(known_folder(base, "train"), GOOD)
    yield from good_images(root, train, category, "train" if held_out else None)
    validation = known_folder(known_folder(base, "validation"), GOOD)
    yield from good_images(root, validation, category, HELD_OUT)
