"""Which layout a folder of images has, and what it lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from decodiff_pipeline.data.file_names import same_name
from decodiff_pipeline.data.layouts import get_layout, layout_names
from decodiff_pipeline.data.layouts.base import DEFECTIVE, GOOD
from decodiff_pipeline.data.listing import find_files, subfolders
from decodiff_pipeline.errors import DataError, ImageError

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

PARTS = frozenset({"train", "test", "validation", "ground_truth"})
PREFERRED = "mvtec"  # where several know the same files
PLAIN = "folder"  # the one that people's own folders are nearest to


@dataclass(frozen=True)
class Fit:
    """How well a layout fits a folder."""

    layout: str
    known: int  # image files that it knows, as an image or as a mask
    good: int  # good ones among them
    why: str  # what speaks for or against it


def find_layout(root: Path) -> tuple[Fit, list[Fit]]:
    """Tries every layout; returns the one that knows most of the image files, and all in order.

    Raises:
        DataError: There is no image or one alone, or no layout knows a good one.
    """
    files = [path.relative_to(root).as_posix() for path in find_files(root).images]
    if not files:
        raise DataError(
            f"{root} holds no image (.png, .jpg, .bmp, .tif or .webp): put good images into "
            f"{root}/good"
        )
    if len(files) == 1:
        raise DataError(
            f"{root} holds one image, {files[0]}: put at least 20 good ones of each category there"
        )
    parts = sorted(PARTS & {same_name(name) for name in subfolders(root)})
    if {"train", "test"} & {*parts}:
        raise DataError(
            f"{root} has {' and '.join(parts)} directly in it, where the layout mvtec has a folder "
            f"for each category: move them into {root}/{root.name}"
        )
    fits = sorted((_fit(name, root, files) for name in layout_names()), key=_order)
    if not fits[0].good:
        refused = (one.why for one in fits if one.layout == PLAIN and "rename" in one.why)
        hint = next((f"; {why}" for why in refused), "")
        raise DataError(
            f"{root} holds {len(files)} images, but in no layout that is known "
            f"({', '.join(layout_names())}): put the good ones into {root}/good and each kind of "
            f"defect into a folder beside it{hint}"
        )
    return fits[0], fits


def _order(fit: Fit) -> tuple[bool, int, bool, str]:
    return not fit.good, -fit.known, fit.layout != PREFERRED, fit.layout


def _fit(name: str, root: Path, files: list[str]) -> Fit:
    layout = get_layout(name)
    try:
        categories = layout.categories(root)
        records = [one for category in categories for one in layout.records(root, category)]
    except (DataError, ImageError) as error:
        return Fit(name, 0, 0, str(error))
    present = set(files)
    known = {one.path for one in records} | {one.mask_path for one in records if one.mask_path}
    good = sum(one.label == GOOD and one.path in present for one in records)
    if not records:
        return Fit(name, 0, 0, "finds no category")
    count = len(known & present)
    shown = ", ".join(categories[:3]) + (", …" if len(categories) > 3 else "")  # noqa: PLR2004
    return Fit(name, count, good, f"knows {count} of {len(files)} image files, category {shown}")


def missing(manifest: pd.DataFrame, least: int) -> list[str]:
    """What a data set lacks, a sentence each."""
    lacks = []
    broken = int((manifest["error"] != "").sum())
    if broken:
        lacks.append(f"{broken} images cannot be read; the data validation names them")
    for category, rows in manifest.groupby("category", sort=True):
        train = int(((rows["split"] == "train") & (rows["label"] == GOOD)).sum())
        defects = rows[rows["label"] == DEFECTIVE]
        if train < least:
            lacks.append(
                f"{category} has {train} good images to train on and needs {least}: add some, or "
                "lower validation.min_train_images"
            )
        if defects.empty:
            lacks.append(f"{category} has no defective images: how well it does is not measured")
        elif defects["mask_path"].isna().all():
            lacks.append(f"{category} has no masks: how well defects are located is not measured")
    return lacks
