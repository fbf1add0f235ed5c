"""What is expected of the images, in Great Expectations' words. Slow to import: 5 s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import great_expectations.expectations as gxe
from great_expectations.expectations.row_conditions import Column

from decodiff_pipeline.data.images import LINK_CURE
from decodiff_pipeline.data.layouts.base import GOOD
from decodiff_pipeline.data.splits import TEST
from decodiff_pipeline.pipelines.data_validation.tables import FITTED

if TYPE_CHECKING:
    from decodiff_pipeline.pipelines.data_validation.config import ValidationConfig

ERROR = "error"
WARNING = "warning"


def image_expectations(config: ValidationConfig) -> list[Any]:
    """Returns the expectations on `tables.image_table`, in the report's order."""
    return [*_files(config), *_splits(), *_masks()]


def file_expectations() -> list[Any]:
    """Returns the expectations on `tables.file_table`."""
    return [
        _empty("link_error", "no_links", f"No file is a link: {LINK_CURE}."),
        _empty(
            "unlisted_error",
            "image_in_its_place",
            "Every image file lies where the layout looks for images or masks (others are left "
            "out: move them, or name them under data.exclude).",
            severity=WARNING,
        ),
    ]


def category_expectations(config: ValidationConfig) -> list[Any]:
    """Returns the expectations on `tables.category_table`, in the report's order."""
    train, held_out = config.min_train_images, config.min_held_out_images
    every = "Every category has at least"
    return [
        _at_least("images", 1, "category_exists", "Every category in the parameters has images."),
        _at_least("train", train, "enough_train_images", f"{every} {train} good train images."),
        _at_least(
            "val",
            held_out,
            "enough_val_images",
            f"{every} {held_out} good val images: held-out loss and fitted limits need them.",
            severity=WARNING,
        ),
        _at_least(
            "calibration",
            held_out,
            "enough_calibration_images",
            f"{every} {held_out} good calibration images: the threshold is a quantile of theirs.",
            severity=WARNING,
        ),
        _at_least(
            "test_both",
            1,
            "test_has_both_labels",
            "Every category has good and defective test images (else there is little to measure).",
            severity=WARNING,
        ),
    ]


def _files(config: ValidationConfig) -> list[Any]:
    decodes = Column("error") == ""
    low, high = config.min_side, config.max_side
    sides = [
        gxe.ExpectColumnValuesToBeBetween(
            column=side,
            min_value=low,
            max_value=high,
            row_condition=decodes,
            meta=_meta(f"image_{side}", f"The {side} is {low} to {high} pixels.", "size"),
        )
        for side in ("width", "height")
    ]
    return [
        _empty("read_error", "image_decodes", "Every image decodes."),
        _empty(
            "mask_beside",
            "no_mask_among_images",
            "No image is a mask of the image beside it, by its name: move masks to where the "
            "layout looks for them, or rename a photograph that is called so.",
        ),
        _empty(
            "same_stem_as",
            "stem_of_one_image",
            "No two images of a folder differ by their suffix only (one may be the other's mask).",
            severity=WARNING,
        ),
        *sides,
        gxe.ExpectColumnValuesToBeInSet(
            column="mode",
            value_set=list(config.modes),
            row_condition=decodes,
            meta=_meta("image_mode", f"The mode is among {', '.join(config.modes)}.", "mode"),
        ),
        _empty("fit_error", "image_fits", "Every image can be brought to the model's squares."),
        gxe.ExpectColumnValuesToBeUnique(
            column="path", meta=_meta("path_unique", "No image is listed twice.", "split")
        ),
    ]


def _splits() -> list[Any]:
    in_test = Column("split") == TEST
    good = "train, val and calibration hold only good images."
    return [
        gxe.ExpectColumnValuesToBeInSet(
            column="label",
            value_set=[GOOD],
            row_condition=Column("split").is_in(list(FITTED)),
            meta=_meta("only_good_outside_test", good, "split", "defect_type"),
        ),
        _empty(
            "other_label_duplicate_of",
            "one_label",
            "No two images of equal bytes have different labels.",
        ),
        _empty(
            "other_category_duplicate_of",
            "one_category",
            "No two images of equal bytes are in different categories.",
            severity=WARNING,
        ),
        _empty(
            "duplicate_of",
            "not_in_train_and_test",
            "No test image is byte for byte a train, val or calibration image.",
            row_condition=in_test,
        ),
        _empty(
            "near_duplicate_of",
            "no_near_duplicates",
            "No test image looks nearly like a train, val or calibration image.",
            severity=WARNING,
            row_condition=in_test,
        ),
        _empty(
            "unseen_mode",
            "mode_seen_in_train",
            "Images have a mode that train images of their category have too (else colour alone "
            "may tell defective from good).",
            severity=WARNING,
        ),
    ]


def _masks() -> list[Any]:
    has_mask = Column("mask_width") > 0
    return [
        _empty(
            "mask_read_error",
            "mask_exists",
            "Every defect that should have a mask has one that decodes.",
        ),
        gxe.ExpectColumnPairValuesToBeEqual(
            column_A="size",
            column_B="mask_size",
            row_condition=has_mask & (Column("error") == ""),
            meta=_meta("mask_size", "Every mask has the size of its image.", "mask_size", "size"),
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="mask_pixels",
            min_value=1,
            row_condition=has_mask,
            meta=_meta("mask_not_empty", "No mask is empty.", "mask_path", "mask_pixels"),
        ),
        _empty("shares_mask_with", "mask_of_one_image", "No two images have the same mask."),
        _empty(
            "lossy_mask",
            "mask_lossless",
            "No mask is a JPEG, whose rounding makes pixels beside a defect non-zero.",
            severity=WARNING,
        ),
    ]


def _meta(name: str, description: str, *columns: str, severity: str = ERROR) -> dict[str, Any]:
    """What the report needs to know of a check; `columns` tell an offender's story."""
    return {
        "name": name,
        "description": description,
        "severity": severity,
        "columns": list(columns),
    }


def _empty(
    column: str, name: str, description: str, *, severity: str = ERROR, **options: Any
) -> gxe.Expectation:
    """Expects a column of complaints to hold none."""
    meta = _meta(name, description, column, severity=severity)
    return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=[""], meta=meta, **options)


def _at_least(
    column: str, minimum: int, name: str, description: str, *, severity: str = ERROR
) -> gxe.Expectation:
    meta = _meta(name, description, column, severity=severity)
    return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=minimum, meta=meta)
