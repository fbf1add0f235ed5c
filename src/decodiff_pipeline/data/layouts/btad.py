"""BTAD (beanTech anomaly detection)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from decodiff_pipeline.data.file_names import nfc
from decodiff_pipeline.data.folder_names import (
    BAD_WORDS,
    MASK_WORDS,
    SPLIT_WORDS,
    good_words,
    has_folder,
    known_folder,
    refuse_near_misses,
)
from decodiff_pipeline.data.layouts.base import (
    DEFECTIVE,
    Layout,
    Place,
    Record,
    good_images,
    mask_index,
)
from decodiff_pipeline.data.layouts.mvtec import refuse_other_layout
from decodiff_pipeline.data.listing import list_images, subfolders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OK, KO, TRUTH = "ok", "ko", "ground_truth"
MEANINGS = good_words(OK) | dict.fromkeys(BAD_WORDS, KO)


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
        found = []
        for name in subfolders(root):
            base = root / name
            splits = [known_folder(base, split) for split in ("train", "test")]
            refuse_near_misses(base, ("train", "test"), SPLIT_WORDS)
            refuse_other_layout(base, self.name)
            for folder in splits:
                refuse_near_misses(folder, (OK, KO), MEANINGS)
            if any(has_folder(folder, OK, KO) for folder in splits):
                refuse_near_misses(base, (TRUTH,), dict.fromkeys(MASK_WORDS, TRUTH))
                refuse_near_misses(known_folder(base, TRUTH), (KO,), MEANINGS)
                found.append(nfc(name))
        return sorted(found)

    def records(self, root: Path, category: str) -> Iterator[Record]:
        """Yields `train/ok` (left to be carved), `test/ok`, then `test/ko` with masks."""
        base = known_folder(root, category)
        train, test = known_folder(base, "train"), known_folder(base, "test")
        yield from good_images(root, known_folder(train, OK), category, None)
        yield from good_images(root, known_folder(test, OK), category, "test")
        truth = known_folder(base, TRUTH)
        masks = known_folder(truth, KO)
        index = mask_index(masks)
        for path in list_images(known_folder(test, KO)):
            mask = index.get(nfc(path.stem), masks / f"{path.stem}.png")
            yield Record(
                category=category,
                split="test",
                label=DEFECTIVE,
                defect_type=KO,
                path=path.relative_to(root).as_posix(),
                mask_path=mask.relative_to(root).as_posix() if truth.is_dir() else None,
            )

    def place(
        self, root: Path, category: str, file: str, defect_type: str | None, *, test: bool
    ) -> Place:
        """Good images go to `train/ok` or `test/ok`, others to `test/ko`, whatever the defect."""
        base = known_folder(root, category)
        if defect_type is None:
            folder = known_folder(base, "test" if test else "train")
            return Place.below(root, known_folder(folder, OK) / file)
        truth = known_folder(base, TRUTH)
        mask = known_folder(truth, KO) / f"{file.rsplit('.', 1)[0]}.png"
        path = known_folder(known_folder(base, "test"), KO) / file
        return Place.below(root, path, mask if truth.is_dir() else None)
