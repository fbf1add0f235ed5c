"""The two tables that expectations are made of: one row an image, one row a category."""

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
from decodiff_pipeline.data.file_names import masks_among, nfc, same_name
from decodiff_pipeline.data.images import LINK_CURE
from decodiff_pipeline.data.layouts.base import DEFECTIVE, GOOD
from decodiff_pipeline.deco.geometry import plan
from decodiff_pipeline.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from decodiff_pipeline.data.layouts import Layout
    from decodiff_pipeline.deco.config import PreprocessConfig

MODES = ["category", "split", "mode"]
SIDEWAYS = 5  # EXIF orientations from this one on exchange width and height


def image_table(
    manifest: pd.DataFrame, near_duplicate_bits: int, preprocessing: PreprocessConfig
) -> pd.DataFrame:
    """Returns the manifest without excluded images and with the columns that relate rows.

    `read_error` and `mask_read_error`: as `error` and `mask_error`, "" for links, which
    `file_table` has; `mask_beside`: why an image seems to be a mask of the image beside it;
    `same_stem_as`: an image beside it that is called so but for the suffix;
    `size` and `mask_size` ("512x512", "" without a readable mask); `duplicate_of` and
    `near_duplicate_of`: for a test image the path of a train, val or calibration image of equal
    pixels, or in the same category of nearly equal looks; `other_label_duplicate_of` and
    `other_category_duplicate_of`: another image of equal pixels with another label or category;
    `copy_of`: an earlier train, val or calibration image of equal pixels in the same category;
    `shares_mask_with`: an earlier image with the same mask; `lossy_mask`: the mask's path where
    its compression changes pixels; `mask_share`: share of the picture that is marked;
    `mask_turn_error`: why a mask may not lie on its image as the EXIF orientation turns it;
    `fit_error`: why an image cannot be brought to the model's squares;
    `unseen_mode`: the mode of an image where no train image of its category has it.
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
    """One row an image file: path, category (none), link_error and unlisted_error.

    Args:
        known: Paths that the layout knows, of images, of masks and of folders of masks.
        links: See `linked_files`.
    """
    table = pd.DataFrame({"path": sorted({*files} | {*links})}, dtype="str")
    names = {nfc(path) for path in known if path is not None}
    path = table["path"].map(nfc)
    listed = path.isin(names) | path.str.rpartition("/")[0].isin(names)
    complaint = pd.Series("in no place that the layout knows", table.index).mask(listed, "")
    linked = pd.Series("is a link", table.index).where(table["path"].isin(links), "")
    return table.assign(category="", unlisted_error=complaint, link_error=linked)


def linked_files(manifest: pd.DataFrame) -> set[str]:
    """Returns the paths of images and masks that are links, or lie in a folder that is one."""
    used = manifest[manifest["split"] != splits.EXCLUDED]
    masks = used["mask_path"][_is_link(used["mask_error"])].dropna()
    return {*used["path"][_is_link(used["error"])], *masks}


def known_files(root: Path, layout: Layout, manifest: pd.DataFrame) -> set[str | None]:
    """What the layout has as an image or as a mask, in whatever category.

    Returns:
        Posix paths relative to `root`, whether the files are there or not.
    """
    known: set[str | None] = {*manifest["path"], *manifest["mask_path"].dropna()}
    for category in {*layout.categories(root)} - {*manifest["category"]}:
        for record in layout.records(root, category):
            known |= {record.path, record.mask_path}
    return known


def exclusions(manifest: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns a dict for each reason to leave images out: reason ("" for none) and paths."""
    excluded = manifest[manifest["split"] == splits.EXCLUDED]
    if "excluded_because" not in excluded:  # a manifest of before there were reasons
        excluded = excluded.assign(excluded_because="")
    return [
        {"reason": str(reason), "paths": list(rows["path"])}
        for reason, rows in excluded.groupby("excluded_because", sort=True)
    ]


def category_table(table: pd.DataFrame, categories: Iterable[str] | None) -> pd.DataFrame:
    """Counts images by category, wanted categories without images included.

    Returns:
        Columns category, images, train, val, calibration (good images), test_both (the smaller
        of good and defective test images). Copies of a picture count once.
    """
    names = sorted({*table["category"].unique(), *(categories or ())})
    pictures = pixel_digests(table).fillna(table["path"])  # what does not decode, by its path
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
    """Returns a complaint by the path of each image that is a mask by its name."""
    complaints = {}
    for mask, image in masks_among(paths).items():
        name, stem = Path(mask), Path(image).stem
        pattern = f"*/{name.stem[: -len(stem)]}*" if name.stem.endswith(stem) else "*"
        pattern += "" if name.stem.endswith(stem) else name.stem[len(stem) :]
        complaints[mask] = (
            f"by its name a mask or a drawing of {Path(image).name}; data.exclude: "
            f"['{pattern}{name.suffix}'] leaves such files out"
        )
    return complaints


def _same_stems(paths: pd.Series) -> pd.Series:
    return _first_alike(paths, paths.map(lambda path: same_name(path.rpartition(".")[0])))


def _shared_masks(table: pd.DataFrame) -> pd.Series:
    masked = table[table["mask_path"].notna()]
    first = masked.drop_duplicates("mask_path").set_index("mask_path")["path"]
    shared = masked["mask_path"].map(first).where(masked["mask_path"].duplicated(), "")
    return shared.reindex(table.index, fill_value="")


def _copies(table: pd.DataFrame) -> pd.Series:
    pictures = table["category"] + " " + pixel_digests(table)
    return _first_alike(table["path"], pictures[table["split"].isin(FITTED)].dropna())


def _first_alike(paths: pd.Series, names: pd.Series) -> pd.Series:
    """Returns the path of the first image of the same name; "" for the first, and without name."""
    names = names[names.duplicated(keep=False)]
    first = paths[names.index].groupby(names).transform("first")
    return first[names.duplicated()].reindex(paths.index, fill_value="")


def _mask_shares(table: pd.DataFrame) -> pd.Series:
    pixels = (table["mask_width"] * table["mask_height"]).clip(lower=1)
    return (table["mask_pixels"] / pixels).round(3)


def _turned_masks(table: pd.DataFrame) -> pd.Series:
    """Says where EXIF turns an image and not its mask, unless the sizes show that both agree."""
    columns = ("orientation", "mask_orientation", "width", "height", "mask_width", "mask_height")

    def complaint(
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
        return f"{finding}: see that the mask lies on the image as it is turned"

    found = [complaint(*row) for row in zip(*(table[name] for name in columns), strict=True)]
    return pd.Series(found, table.index, dtype="str")


def _fit_errors(table: pd.DataFrame, preprocessing: PreprocessConfig) -> pd.Series:
    def complaint(width: int, height: int) -> str:
        try:
            plan((width, height), preprocessing)
        except ImageError as error:
            return str(error)
        return ""

    found = [
        complaint(width, height) if not error else ""
        for width, height, error in zip(
            table["width"], table["height"], table["error"], strict=True
        )
    ]
    return pd.Series(found, table.index, dtype="str")


def _count(rows: pd.DataFrame, names: list[str]) -> pd.Series:
    """Different pictures by category."""
    return rows.groupby("category")["picture"].nunique().reindex(names, fill_value=0)


def _unseen_modes(table: pd.DataFrame) -> pd.Series:
    train = table[table["split"] == splits.TRAIN]
    seen = set(zip(train["category"], train["mode"], strict=True))
    trained = set(train["category"])
    unseen = [
        category in trained and (category, mode) not in seen
        for category, mode in zip(table["category"], table["mode"], strict=True)
    ]
    return table["mode"][unseen]
