"""Detects the layout of a folder of images, and what the data set lacks."""

from __future__ import annotations

import math
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
PREFERRED = "mvtec"  # if several layouts match the same files
PLAIN = "folder"  # the layout whose error is shown if none matches


@dataclass(frozen=True)
class Fit:
    """How well a layout fits a folder."""

    layout: str
    known: int  # image files that are an image or a mask in this layout
    good: int  # good images among them
    why: str  # explanation


def find_layout(root: Path) -> tuple[Fit, list[Fit]]:
    """Try every layout; returns the one that matches most image files, and all in that order.

    Raises:
        DataError: There are fewer than two images, or no layout finds a good one.
    """
    files = [path.relative_to(root).as_posix() for path in find_files(root).images]
    if not files:
        raise DataError(
            f"{root} contains no image (.png, .jpg, .bmp, .tif or .webp): put good images into "
            f"{root}/good"
        )
    if len(files) == 1:
        raise DataError(
            f"{root} contains one image, {files[0]}: add at least 40 good ones of each category"
        )
    parts = sorted(PARTS & {same_name(name) for name in subfolders(root)})
    if {"train", "test"} & {*parts}:
        raise DataError(
            f"{root} has {' and '.join(parts)} directly in it, where the layout mvtec has a folder "
            f"for each category: move them into {root}/{root.name}"
        )
    fits = sorted((_fit(name, root, files) for name in layout_names()), key=_order)
    if not fits[0].good:
        errors = (fit.why for fit in fits if fit.layout == PLAIN and "rename" in fit.why)
        hint = next((f"; {why}" for why in errors), "")
        raise DataError(
            f"{root} contains {len(files)} images, but in no known layout "
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
        records = [row for category in categories for row in layout.records(root, category)]
    except (DataError, ImageError) as error:
        return Fit(name, 0, 0, str(error))
    present = set(files)
    known = {row.path for row in records} | {row.mask_path for row in records if row.mask_path}
    good = sum(row.label == GOOD and row.path in present for row in records)
    if not records:
        return Fit(name, 0, 0, "finds no category")
    count = len(known & present)
    names = ", ".join(categories[:3]) + (", …" if len(categories) > 3 else "")  # noqa: PLR2004
    return Fit(name, count, good, f"matches {count} of {len(files)} image files, category {names}")


def missing(manifest: pd.DataFrame, least: int, rate: float) -> list[str]:
    """What a data set lacks for training, evaluation and promotion, as sentences.

    Args:
        manifest: With splits.
        least: Number of good train images that a category needs.
        rate: Target false-positive rate, which n calibration images hold if 1 / (n + 1) is at most
            as large.
    """
    calibration = math.ceil(1 / rate) - 1
    sentences = []
    unreadable = int((manifest["error"] != "").sum())
    if unreadable:
        sentences.append(f"{unreadable} images cannot be read; the data validation lists them")
    for category, rows in manifest.groupby("category", sort=True):
        train = int(((rows["split"] == "train") & (rows["label"] == GOOD)).sum())
        defects = rows[rows["label"] == DEFECTIVE]
        if train < least:
            sentences.append(
                f"{category} has {train} good images to train on and needs {least}: add some, or "
                "lower validation.min_train_images"
            )
        held = int(((rows["split"] == "calibration") & (rows["label"] == GOOD)).sum())
        if held < calibration:
            sentences.append(
                f"{category} has {held} calibration images and needs {calibration} for a "
                f"false-positive rate of {rate:g}: the promotion refuses the model; add good "
                "images, or raise evaluation.false_positive_rate and lower "
                "promotion.min_calibration_images"
            )
        if defects.empty:
            sentences.append(f"{category} has no defective images: detection is not measured")
        elif defects["mask_path"].isna().all():
            sentences.append(f"{category} has no masks: localisation is not measured")
    return sentences
