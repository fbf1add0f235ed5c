"""The tables that the checks validate: a row per image, per file and per category."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from decodiff_pipeline.data import splits
from decodiff_pipeline.data.duplicates import (
    FITTED,
    differing_duplicate_of,
    duplicate_of,
    near_duplicate_of,
    pixel_digests,
)
from decodiff_pipeline.data.file_names import masks_by_name, nfc, same_name
from decodiff_pipeline.data.images import LINK_CURE
from decodiff_pipeline.data.layouts.base import DEFECTIVE, GOOD
from decodiff_pipeline.deco.geometry import plan
from decodiff_pipeline.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from decodiff_pipeline.data.layouts import Layout
    from decodiff_pipeline.deco.config import PreprocessConfig

MODES = ["category", "split", "mode"]
SIDEWAYS = 5  # EXIF orientations from 5 to 8 swap width and height


def image_table(
    manifest: pd.DataFrame, near_duplicate_bits: int, preprocessing: PreprocessConfig
) -> pd.DataFrame:
    """The manifest without excluded images, with additional columns.

    All columns but `mask_share` are text. Columns of paths and errors are "" if the check passes.

    - `read_error`, `mask_read_error`: `error` and `mask_error`, but "" for links, which are rows
      of `file_table`.
    - `mask_beside`: why the name of an image is that of a mask of another image in its folder.
    - `same_stem_as`: an image of the folder whose name differs only in the suffix.
    - `size`, `mask_size`: such as "512x512"; "" without a readable mask.
    - `duplicate_of`: of a test image, a train, val or calibration image with equal pixels.
    - `near_duplicate_of`: of a test image, a similar train, val or calibration image of the
      category.
    - `other_label_duplicate_of`, `other_category_duplicate_of`: an image with equal pixels and
      another label or category.
    - `copy_of`: of a train, val or calibration image, an earlier one of the category with equal
      pixels.
    - `shares_mask_with`: an earlier image with the same mask file.
    - `lossy_mask`: path of the mask if its compression is lossy.
    - `mask_share`: share of defective pixels in the image, 0 to 1.
    - `mask_turn_error`: why the EXIF orientations of image and mask do not agree.
    - `fit_error`: why the image cannot be resized to the model's input.
    - `unseen_mode`: mode of the image if no train image of the category has it.
    """
    excluded = manifest["split"] == splits.EXCLUDED
    table = (manifest[~excluded] if excluded.any() else manifest).reset_index(drop=True)
    sizes = table["width"].astype(str) + "x" + table["height"].astype(str)
    masks = table["mask_width"].astype(str) + "x" + table["mask_height"].astype(str)
    readable = table["error"] == ""
    return table.assign(
        read_error=table["error"].mask(_is_link(table["error"]), ""),
        mask_read_error=table["mask_error"].mask(_is_link(table["mask_error"]), ""),
        same_stem_as=_same_stems(table["path"]),
        mask_beside=table["path"].map(_masks_beside(manifest["path"])).fillna(""),
        size=sizes,
        mask_size=masks.where(table["mask_width"] > 0, ""),
        duplicate_of=duplicate_of(table),
        near_duplicate_of=near_duplicate_of(table, near_duplicate_bits),
        other_label_duplicate_of=differing_duplicate_of(table, "label"),
        other_category_duplicate_of=differing_duplicate_of(table, "category"),
        copy_of=_copies(table),
        shares_mask_with=_shared_masks(table),
        lossy_mask=table["mask_path"].where(table["mask_lossy"], ""),
        mask_share=_mask_shares(table),
        mask_turn_error=_turned_masks(table),
        fit_error=_fit_errors(table, preprocessing),
        unseen_mode=_unseen_modes(table.loc[readable, MODES]).reindex(table.index, fill_value=""),
    )


def file_table(
    files: Iterable[str], known: Collection[str | None], links: Collection[str]
) -> pd.DataFrame:
    """A row per image file: path, category (always ""), link_error and unlisted_error.

    Args:
        files: Paths of image files, relative to the root.
        known: Paths of images, masks and mask folders in the layout; see `known_files`.
        links: See `linked_files`.
    """
    table = pd.DataFrame({"path": sorted({*files} | {*links})}, dtype="str")
    names = {nfc(path) for path in known if path is not None}
    path = table["path"].map(nfc)
    listed = path.isin(names) | path.str.rpartition("/")[0].isin(names)
    unlisted = pd.Series("is in no folder of the layout", table.index).mask(listed, "")
    linked = pd.Series("is a link", table.index).where(table["path"].isin(links), "")
    return table.assign(category="", unlisted_error=unlisted, link_error=linked)


def linked_files(manifest: pd.DataFrame) -> set[str]:
    """Paths of images and masks that are links or are in a linked folder."""
    used = manifest[manifest["split"] != splits.EXCLUDED]
    masks = used["mask_path"][_is_link(used["mask_error"])].dropna()
    return {*used["path"][_is_link(used["error"])], *masks}


def known_files(root: Path, layout: Layout, manifest: pd.DataFrame) -> set[str | None]:
    """Paths of the images, masks and mask folders of all categories, including missing files.

    Returns:
        Posix paths relative to `root`.
    """
    known: set[str | None] = {*manifest["path"], *manifest["mask_path"].dropna()}
    for category in {*layout.categories(root)} - {*manifest["category"]}:
        for record in layout.records(root, category):
            known |= {record.path, record.mask_path}
    return known


def exclusions(manifest: pd.DataFrame) -> list[dict[str, Any]]:
    """Excluded images by reason: dicts of ``reason`` ("" for none) and ``paths``."""
    excluded = manifest[manifest["split"] == splits.EXCLUDED]
    if "excluded_because" not in excluded:  # a manifest of an earlier version
        excluded = excluded.assign(excluded_because="")
    return [
        {"reason": str(reason), "paths": list(rows["path"])}
        for reason, rows in excluded.groupby("excluded_because", sort=True)
    ]


def category_table(table: pd.DataFrame, categories: Iterable[str] | None) -> pd.DataFrame:
    """Image counts by category; images with equal pixels count once.

    Args:
        table: See `image_table`.
        categories: Expected categories, which have rows even without images.

    Returns:
        Columns ``category``, ``images``, ``train``, ``val`` and ``calibration`` (good images), and
        ``test_both`` (the smaller count of good and defective test images).
    """
    names = sorted({*table["category"].unique(), *(categories or ())})
    pictures = pixel_digests(table).fillna(table["path"])  # unreadable images count by path
    table = table[["category", "split", "label"]].assign(picture=pd.factorize(pictures)[0])
    good = table[table["label"] == GOOD]
    test = table[table["split"] == splits.TEST]
    columns = {"images": _count(table, names)}
    for split in FITTED:
        columns[split] = _count(good[good["split"] == split], names)
    columns["test_both"] = pd.concat(
        [_count(test[test["label"] == label], names) for label in (GOOD, DEFECTIVE)], axis=1
    ).min(axis=1)
    return pd.DataFrame(columns).rename_axis("category").reset_index()


def _is_link(errors: pd.Series) -> pd.Series:
    return errors.str.endswith(f"{LINK_CURE}.")


def _masks_beside(paths: Iterable[str]) -> dict[str, str]:
    """Path of each image with the name of a mask → error message."""
    errors = {}
    for mask, image in masks_by_name(paths).items():
        name, stem = Path(mask), Path(image).stem
        pattern = f"*/{name.stem[: -len(stem)]}*" if name.stem.endswith(stem) else "*"
        pattern += "" if name.stem.endswith(stem) else name.stem[len(stem) :]
        errors[mask] = (
            f"by its name a mask or a drawing of {Path(image).name}; data.exclude: "
            f"['{pattern}{name.suffix}'] excludes such files"
        )
    return errors


def _same_stems(paths: pd.Series) -> pd.Series:
    return _first_equal(paths, paths.map(lambda path: same_name(path.rpartition(".")[0])))


def _shared_masks(table: pd.DataFrame) -> pd.Series:
    masked = table[table["mask_path"].notna()]
    first = masked.drop_duplicates("mask_path").set_index("mask_path")["path"]
    shared = masked["mask_path"].map(first).where(masked["mask_path"].duplicated(), "")
    return shared.reindex(table.index, fill_value="")


def _copies(table: pd.DataFrame) -> pd.Series:
    pictures = table["category"] + " " + pixel_digests(table)
    return _first_equal(table["path"], pictures[table["split"].isin(FITTED)].dropna())


def _first_equal(paths: pd.Series, keys: pd.Series) -> pd.Series:
    """The path of the first image with an equal key; "" for the first, and for images without."""
    keys = keys[keys.duplicated(keep=False)]
    first = paths[keys.index].groupby(keys).transform("first")
    return first[keys.duplicated()].reindex(paths.index, fill_value="")


def _mask_shares(table: pd.DataFrame) -> pd.Series:
    pixels = (table["mask_width"] * table["mask_height"]).clip(lower=1)
    return (table["mask_pixels"] / pixels).round(3)


def _turned_masks(table: pd.DataFrame) -> pd.Series:
    """Errors of masks whose EXIF orientation differs, unless the sizes show that both agree."""
    columns = ("orientation", "mask_orientation", "width", "height", "mask_width", "mask_height")

    def mask_error(
        turn: int, mask_turn: int, width: int, height: int, mask_width: int, mask_height: int
    ) -> str:
        if not mask_width or not turn or turn == mask_turn:
            return ""
        sideways, size = turn >= SIDEWAYS and width != height, (mask_width, mask_height)
        finding = f"EXIF gives the image the orientation {turn} and its mask {mask_turn}"
        if sideways and size == (height, width):
            return (
                f"{finding}, and the mask fits the image before it is turned: turn the mask as well"
            )
        if sideways or size != (width, height):
            return ""
        return f"{finding}: check that the mask lies on the image as it is turned"

    errors = [mask_error(*row) for row in zip(*(table[name] for name in columns), strict=True)]
    return pd.Series(errors, table.index, dtype="str")


def _fit_errors(table: pd.DataFrame, preprocessing: PreprocessConfig) -> pd.Series:
    def fit_error(width: int, height: int) -> str:
        try:
            plan((width, height), preprocessing)
        except ImageError as error:
            return str(error)
        return ""

    errors = [
        "" if read_error else fit_error(width, height)
        for width, height, read_error in zip(
            table["width"], table["height"], table["error"], strict=True
        )
    ]
    return pd.Series(errors, table.index, dtype="str")


def _count(rows: pd.DataFrame, names: list[str]) -> pd.Series:
    """Distinct images by category."""
    return rows.groupby("category")["picture"].nunique().reindex(names, fill_value=0)


def _unseen_modes(table: pd.DataFrame) -> pd.Series:
    train = table[table["split"] == splits.TRAIN]
    train_modes = set(zip(train["category"], train["mode"], strict=True))
    train_categories = set(train["category"])
    unseen = [
        category in train_categories and (category, mode) not in train_modes
        for category, mode in zip(table["category"], table["mode"], strict=True)
    ]
    return table["mode"][unseen]
