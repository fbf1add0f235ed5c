"""MVTec AD, MPDD and every set in their shape."""

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
        return [name for name in subfolders(root) if {"train", "test"} & {*subfolders(root / name)}]

    def records(self, root: Path, category: str) -> Iterator[Record]:
        """Yields `train`, then `test`; good train images are left to be carved."""
        for split in ("train", "test"):
            for defect in subfolders(root / category / split):
                label = GOOD if defect == GOOD else DEFECTIVE
                carved = split == "train" and label == GOOD
                masks = self._masks(root / category / "ground_truth", defect)
                for path in list_images(root / category / split / defect):
                    mask = None
                    if masks is not None and split == "test":
                        missing = (
                            root / category / "ground_truth" / defect / f"{path.stem}_mask.png"
                        )
                        mask = masks.get(path.stem, missing).relative_to(root).as_posix()
                    yield Record(
                        category=category,
                        split=None if carved else split,
                        label=label,
                        defect_type=defect,
                        path=path.relative_to(root).as_posix(),
                        mask_path=mask,
                    )

    def place(
        self, root: Path, category: str, file: str, defect_type: str | None, *, test: bool
    ) -> Place:
        """Good images go to `train/good` or `test/good`, others to `test/<defect type>`."""
        if defect_type is None:
            return Place(f"{category}/{'test' if test else 'train'}/good/{file}")
        mask = f"{category}/ground_truth/{defect_type}/{file.rsplit('.', 1)[0]}_mask.png"
        masked = (root / category / "ground_truth").is_dir()
        return Place(f"{category}/test/{defect_type}/{file}", mask if masked else None)

    @staticmethod
    def _masks(ground_truth: Path, defect: str) -> dict[str, Path] | None:
        if defect == GOOD or not ground_truth.is_dir():
            return None
        return mask_index(ground_truth / defect, ("_mask", ""))
