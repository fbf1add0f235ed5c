"""BTAD (beanTech anomaly detection)."""

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


class BTADLayout(Layout):
    """`<category>/train/ok`, `<category>/test/ok`, `<category>/test/ko`, `ground_truth/ko`.

    The mask of `test/ko/<stem>.*` is `ground_truth/ko/<stem>.png` or `.bmp`.
    """

    name = "btad"
    expects = (
        "the extracted folders <category>/train/ok/, <category>/test/ok/, <category>/test/ko/ and "
        "<category>/ground_truth/ko/<stem>.png or .bmp"
    )

    def categories(self, root: Path) -> list[str]:
        """Returns the folders that have `train/ok` or a `test` folder with `ok` or `ko`."""
        return [
            name
            for name in subfolders(root)
            if {"ok", "ko"}
            & {*subfolders(root / name / "train"), *subfolders(root / name / "test")}
        ]

    def records(self, root: Path, category: str) -> Iterator[Record]:
        """Yields `train/ok` (left to be carved), `test/ok`, then `test/ko` with masks."""
        base = root / category
        for split, folder in ((None, base / "train" / "ok"), ("test", base / "test" / "ok")):
            for path in list_images(folder):
                yield Record(category, split, GOOD, GOOD, path.relative_to(root).as_posix())
        truth = base / "ground_truth"
        masks = mask_index(truth / "ko")
        for path in list_images(base / "test" / "ko"):
            mask = (
                masks.get(path.stem, truth / "ko" / f"{path.stem}.png") if truth.is_dir() else None
            )
            yield Record(
                category=category,
                split="test",
                label=DEFECTIVE,
                defect_type="ko",
                path=path.relative_to(root).as_posix(),
                mask_path=mask.relative_to(root).as_posix() if mask else None,
            )

    def place(
        self, root: Path, category: str, file: str, defect_type: str | None, *, test: bool
    ) -> Place:
        """Good images go to `train/ok` or `test/ok`, others to `test/ko`, whatever the defect."""
        if defect_type is None:
            return Place(f"{category}/{'test' if test else 'train'}/ok/{file}")
        mask = f"{category}/ground_truth/ko/{file.rsplit('.', 1)[0]}.png"
        masked = (root / category / "ground_truth").is_dir()
        return Place(f"{category}/test/ko/{file}", mask if masked else None)
