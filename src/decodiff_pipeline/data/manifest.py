"""Manifest of a folder of raw images: a table with one row per image."""

from __future__ import annotations

import fnmatch
import logging
import os
from collections import Counter
from contextlib import closing
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from decodiff_pipeline.data import splits
from decodiff_pipeline.data.bit_depth import smallest_depth
from decodiff_pipeline.data.decoding import MAX_PIXELS
from decodiff_pipeline.data.duplicates import pixel_digests
from decodiff_pipeline.data.file_names import nfc
from decodiff_pipeline.data.images import ImageFolder  # noqa: TC001 - Kedro resolves annotations
from decodiff_pipeline.data.layouts import Record, get_layout, layout_names, list_records
from decodiff_pipeline.data.layouts.base import DEFECTIVE, GOOD, HELD_OUT
from decodiff_pipeline.data.listing import find_files
from decodiff_pipeline.data.measuring import measure
from decodiff_pipeline.data.read_ahead import read_ahead
from decodiff_pipeline.deco.colour import FULL_DEPTH
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.text import Text, as_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

ROWS = 1024  # dictionaries that are converted into one table

# Name → dtype of every column, in order.
COLUMNS = {
    "category": "str",
    "split": "str",  # train, val, calibration, test, excluded
    "label": "str",  # good, defective, uncertain
    "defect_type": "str",  # "good" for good images
    "path": "str",  # posix, relative to the raw root
    "width": "int64",  # pixels, EXIF orientation applied; 0 where the image does not decode
    "height": "int64",
    "mode": "str",  # Pillow mode of the file, "" where it does not decode
    "bytes": "int64",
    "sha256": "str",  # of the file, "" where it cannot be read
    "mask_path": "object",  # as `path`; missing (pd.isna) where there is no mask
    "error": "str",  # why the image does not decode, "" otherwise
    "mask_error": "str",  # why the mask is missing or does not decode, "" otherwise
    "mask_width": "int64",  # 0 without a readable mask, like the next two columns
    "mask_height": "int64",
    "mask_pixels": "int64",  # defective pixels
    "dhash": "str",  # duplicates.difference_hash, "" where the image does not decode
    "excluded_because": "str",  # reason in data.exclude, "" for none
    "pixels_sha256": "str",  # of the decoded pixels: unchanged if the image is re-saved lossless
    "contrast": "int64",  # range of grey levels, 0 to 255 (`measuring.contrast`)
    "bit_depth": "int64",  # bits used of a 16-bit file, 0 for other files
    "largest_value": "int64",  # of a 16-bit file, 0 for other files
    "orientation": "int64",  # EXIF orientation, 1 to 8; 0 where the image does not decode
    "note": "str",  # error in the metadata, which are ignored then
    "mask_orientation": "int64",  # as `orientation`
    "mask_note": "str",  # which non-zero value of the mask is read as background
    "mask_lossy": "bool",  # whether the file has lossy compression
}
# Values of the columns that were not measured, by dtype.
NOT_MEASURED = {"str": "", "int64": 0, "bool": False, "object": None}


class Exclusion(BaseModel):
    """Images to exclude, with the reason.

    Attributes:
        path: Path relative to the raw root, or a glob pattern of such paths.
        reason: Why they are excluded; stored in the manifest and shown in the validation report.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Text = Field(min_length=1)
    reason: Text = ""

    def among(self, paths: Iterable[str]) -> set[str]:
        """The paths equal to `path`, or else those that match it as a glob pattern.

        Paths are compared in the Unicode normal form NFC.
        """
        by_name = {nfc(path): path for path in paths}
        pattern = nfc(self.path)
        named = {pattern} & {*by_name} or fnmatch.filter(by_name, pattern)
        return {by_name[path] for path in named}


class DataConfig(BaseModel):
    """Layout of the raw images and their split (`conf/*/parameters_data.yml`).

    Attributes:
        layout: Name of the folder layout (docs/data.md).
        categories: Categories to use; None for all.
        seed: Seed of the split, which depends on the seed and on the SHA-256 of each image.
        val_fraction: Share of the good images outside test that goes to val.
        calibration_fraction: Share of the good images outside test that goes to calibration.
        test_fraction: Share of the good images that goes to test, in a category that has defective
            test images but no good ones.
        split_version: 2, for new data sets: in a category with fewer than 100 good images outside
            test, val and calibration get at least a tenth each by count (less if their fraction is
            less). 1 keeps the split of data sets made before version 2.
        exclude: Images to exclude: a list of glob patterns of paths relative to the raw root, or of
            ``{path: pattern, reason: why}``.
        workers: Threads that read images; None for one per core, at most 8.
        bit_depth: Number of bits that 16-bit images use: 8, 10, 12, 14 or 16; ``auto`` for the
            smallest that holds every value of the category.
        max_pixels: Largest width times height of an image or mask that is decoded.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layout: Text
    categories: tuple[Text, ...] | None = None
    seed: int = 0
    val_fraction: float = Field(default=0.1, ge=0, lt=1)
    calibration_fraction: float = Field(default=0.1, ge=0, lt=1)
    test_fraction: float = Field(default=0.2, ge=0, lt=1)
    split_version: Literal[1, 2] = 1
    exclude: tuple[Exclusion, ...] = ()
    workers: int | None = Field(default=None, ge=1)
    bit_depth: Literal["auto", 8, 10, 12, 14, 16] = "auto"
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)

    @field_validator("layout")
    @classmethod
    def _layout_exists(cls, name: str) -> str:
        if name not in layout_names():
            raise ValueError(f"{name!r} is not a layout: use one of {', '.join(layout_names())}")
        return name

    @field_validator("exclude", mode="before")
    @classmethod
    def _parse_exclusions(cls, entries: object) -> object:
        if not isinstance(entries, list | tuple):
            raise ValueError(f"make it a list; it is {entries!r}")
        entries = [as_text(entry) for entry in entries]
        for entry in entries:
            if not isinstance(entry, str | dict | Exclusion):
                raise ValueError(
                    f"{entry!r} is neither a pattern of paths nor {{path: pattern, reason: why}}"
                )
        return [{"path": entry} if isinstance(entry, str) else entry for entry in entries]

    @field_validator("categories")
    @classmethod
    def _distinct_categories(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is None:
            return None
        names = tuple(map(nfc, names))
        if not names or len(set(names)) < len(names):
            raise ValueError("name each category once, or use null for all that are there")
        return names

    @model_validator(mode="after")
    def _fractions_below_one(self) -> DataConfig:
        if self.val_fraction + self.calibration_fraction >= 1:
            raise ValueError(
                "val_fraction + calibration_fraction must be below 1: train is the rest"
            )
        return self


def build_manifest(images: ImageFolder, config: DataConfig) -> pd.DataFrame:
    """List, read, hash and measure every image and mask, and split the good images.

    An image that cannot be read has a row too, with the reason in `error`; validation reports it.

    Returns:
        One row per image, columns as in `COLUMNS`, sorted by category and path.

    Raises:
        DataError: The root does not exist, does not follow the layout, or lacks a category of
            `categories`; a category has a reserved name; or every image is excluded.
    """
    root = images.path
    records = list_records(root, get_layout(config.layout), config.categories)
    depth = FULL_DEPTH if config.bit_depth == "auto" else config.bit_depth
    manifest = _measure_all(root, records, repeat(depth), config)
    if config.bit_depth == "auto":
        manifest = _measure_with_depths(root, records, manifest, config)
    _mark_excluded(manifest, config.exclude, root)
    manifest["split"] = _assign_splits(manifest, config)
    return manifest.sort_values(["category", "path"], ignore_index=True)


def count_table(manifest: pd.DataFrame) -> dict[str, dict[str, dict[str, int]]]:
    """Number of images by category, split and label."""
    table: dict[str, dict[str, dict[str, int]]] = {}
    rows = zip(manifest["category"], manifest["split"], manifest["label"], strict=True)
    for (category, split, label), count in sorted(Counter(rows).items()):
        table.setdefault(category, {}).setdefault(split, {})[label] = count
    return table


def _measure_all(
    root: Path, records: Sequence[Record], depths: Iterable[int], config: DataConfig
) -> pd.DataFrame:
    """Measure images in threads, each with its bit depth; one row per record, in the same order."""
    from tqdm import tqdm

    def row(item: tuple[Record, int]) -> dict[str, Any]:
        record, depth = item
        return {
            **{name: NOT_MEASURED[dtype] for name, dtype in COLUMNS.items()},
            "category": record.category,
            "split": record.split or "",
            "label": record.label,
            "defect_type": record.defect_type,
            "path": record.path,
            **measure(root, record, config.max_pixels, depth),
        }

    # Threads run in parallel, because Pillow and hashlib release the GIL.
    workers = config.workers or min(8, os.cpu_count() or 1)
    parts = []
    with closing(read_ahead(row, zip(records, depths), ROWS, workers)) as rows:
        bar = iter(
            tqdm(rows, desc="reading images", total=len(records), unit="image", disable=None)
        )
        while part := list(islice(bar, ROWS)):
            parts.append(pd.DataFrame(part, columns=list(COLUMNS)).astype(COLUMNS))
    return pd.concat(parts, ignore_index=True)


def _measure_with_depths(
    root: Path, records: Sequence[Record], manifest: pd.DataFrame, config: DataConfig
) -> pd.DataFrame:
    """Measure 16-bit images again if their category uses fewer than 16 bits."""
    deep = manifest[manifest["bit_depth"] > 0]
    excluded = {path for entry in config.exclude for path in entry.among(manifest["path"])}
    counted = deep[~deep["path"].isin(excluded)]
    largest = counted.groupby("category", sort=False)["largest_value"].max()
    depths = {str(category): smallest_depth(int(value)) for category, value in largest.items()}
    for category, depth in depths.items():
        logger.info(
            "category %s: the largest value of its 16-bit images is %d, so they are read by %d "
            "bits (data.bit_depth: auto)",
            category, largest[category], depth,
        )  # fmt: skip

    wanted = deep["category"].map(depths).fillna(FULL_DEPTH).astype(int)
    wanted = wanted[wanted != FULL_DEPTH]
    if wanted.empty:
        return manifest
    again = _measure_all(root, [records[row] for row in wanted.index], wanted, config)
    return pd.concat(
        [manifest.drop(index=wanted.index), again.set_index(wanted.index)]
    ).sort_index()


def _mark_excluded(manifest: pd.DataFrame, exclude: Sequence[Exclusion], root: Path) -> None:
    """Mark excluded images in place, each with the first reason given for it."""
    for entry in exclude:
        matched = manifest["path"].isin(entry.among(manifest["path"]))
        if not matched.any():
            found = [path.relative_to(root).as_posix() for path in find_files(root).images]
            if not entry.among(found):
                logger.warning("data.exclude: the pattern %r matches no image.", entry.path)
            continue
        logger.info(
            "data.exclude: %d images by %r: %s",
            matched.sum(), entry.path, entry.reason or "no reason given",
        )  # fmt: skip
        manifest.loc[matched, "split"] = splits.EXCLUDED
        unexplained = matched & (manifest["excluded_because"] == "")
        manifest.loc[unexplained, "excluded_because"] = entry.reason
    if (manifest["split"] == splits.EXCLUDED).all():
        raise DataError(f"data.exclude leaves out every image in {root}: narrow its patterns.")


def _assign_splits(manifest: pd.DataFrame, config: DataConfig) -> pd.Series:
    """The split column, with splits assigned to the rows for which the layout sets none."""
    split = manifest["split"].copy()
    options: dict[str, Any] = {
        "seed": config.seed,
        "val_fraction": config.val_fraction,
        "calibration_fraction": config.calibration_fraction,
    }
    for category, group in manifest.groupby("category"):
        test = group[split[group.index] == splits.TEST]
        labels = set(test["label"])
        needs_good = DEFECTIVE in labels and GOOD not in labels
        rows = group.index[split[group.index] == ""]
        if needs_good and config.test_fraction > 0 and len(rows):
            logger.warning(
                "category %s has defective test images and no good one: %g of its good images "
                "(data.test_fraction) go to test.",
                category,
                config.test_fraction,
            )
        keys = _split_keys(manifest.loc[rows])
        test_fraction = config.test_fraction if needs_good else 0.0
        assigned = splits.assign_splits(
            keys, test_fraction=test_fraction, version=config.split_version, **options
        )
        split[rows] = keys.map(assigned)
        held_out = group.index[split[group.index] == HELD_OUT]
        keys = manifest.loc[held_out, "sha256"].where(lambda s: s != "", manifest["path"])
        split[held_out] = keys.map(splits.divide_held_out(keys, **options))
    return split


def _split_keys(rows: pd.DataFrame) -> pd.Series:
    """The digest that decides the split: images with equal pixels share the smallest of theirs."""
    # an unreadable file has no digest: use its path, so that it gets a split too
    keys = rows["sha256"].where(rows["sha256"] != "", rows["path"])
    return keys.groupby(pixel_digests(rows).fillna(keys)).transform("min")
