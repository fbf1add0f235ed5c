"""The checks as Great Expectations expectations. Importing this module takes 5 s."""

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
DECODES = Column("error") == ""
HAS_MASK = Column("mask_width") > 0
# Column of `tables.category_table` → its unit.
UNITS = {
    "images": "images",
    "train": "good train images",
    "val": "good val images",
    "calibration": "good calibration images",
    "test_both": "test images of the rarer label",
}


def image_expectations(config: ValidationConfig) -> list[Any]:
    """Expectations on `tables.image_table`, in the order of the report."""
    return [
        *_files(config), *_contents(config), *_splits(), *_mask_files(), *_mask_values(config)
    ]  # fmt: skip


def file_expectations() -> list[Any]:
    """Expectations on `tables.file_table`."""
    return [
        _empty("link_error", "no_links", f"No file is a link: {LINK_CURE}."),
        _warn(
            "unlisted_error",
            "image_in_its_place",
            "Every image file is in a folder of the layout (others are ignored: move them, or add "
            "them to data.exclude).",
        ),
    ]


def category_expectations(config: ValidationConfig) -> list[Any]:
    """Expectations on `tables.category_table`, in the order of the report."""
    train = ("validation.min_train_images", config.min_train_images)
    held_out = ("validation.min_held_out_images", config.min_held_out_images)
    every = "Every category has at least"
    add = "add images, or lower"
    return [
        _at_least("images", ("data.categories", 1), "category_exists",
                  "Every category in data.categories has images: correct or remove the name."),
        _at_least("train", train, "enough_train_images",
                  f"{every} {train[1]} good train images: {add} {train[0]}, "
                  "or exclude the category with data.exclude."),
        _at_least("val", held_out, "enough_val_images",
                  f"{every} {held_out[1]} good val images, for validation loss and fitted scoring: "
                  f"{add} {held_out[0]}, or raise data.val_fraction.", severity=WARNING),
        _at_least("calibration", held_out, "enough_calibration_images",
                  f"{every} {held_out[1]} good calibration images, to which the thresholds are "
                  f"fitted: {add} {held_out[0]}, or raise data.calibration_fraction.",
                  severity=WARNING),
        _at_least("test_both", ("the minimum", 1), "test_has_both_labels",
                  "Every category has good and defective test images (most metrics need both): "
                  "add images.", severity=WARNING),
    ]  # fmt: skip


def _files(config: ValidationConfig) -> list[Any]:
    modes = _meta(
        "image_mode",
        f"The mode is among {', '.join(config.modes)} (validation.modes): convert the image, or "
        "add its mode.",
        detail="has the mode {mode}, not among validation.modes",
    )
    unique = _meta(
        "path_unique",
        "No image is listed twice: remove one of the lines from the table of the data set.",
        detail="is listed twice",
    )
    return [
        _empty(
            "read_error",
            "image_decodes",
            "Every image can be decoded: copy the file again, or remove it.",
        ),
        _empty(
            "mask_beside",
            "no_mask_among_images",
            "No image has the name of a mask of another image in its folder: move masks to the "
            "mask folder of the layout, or rename the image.",
        ),
        _warn(
            "same_stem_as",
            "stem_of_one_image",
            "No two images of a folder differ only in the suffix (one may be the other's mask).",
        ),
        _side("width", config),
        _side("height", config),
        gxe.ExpectColumnValuesToBeInSet(
            column="mode", value_set=list(config.modes), row_condition=DECODES, meta=modes
        ),
        _empty(
            "fit_error",
            "image_fits",
            "Every image can be resized to the model's input (preprocessing.fit): choose another "
            "fit, or exclude the image.",
        ),
        gxe.ExpectColumnValuesToBeUnique(column="path", meta=unique),
    ]


def _side(side: str, config: ValidationConfig) -> gxe.Expectation:
    low = ("validation.min_side", config.min_side)
    high = ("validation.max_side", config.max_side)
    text = (
        f"The {side} is {low[1]} ({low[0]}) to {high[1]} ({high[0]}) pixels: resize or tile the "
        "image, or change the limit."
    )
    return _between(
        side, f"image_{side}", text, detail="is {size}", low=low, high=high, row_condition=DECODES
    )


def _contents(config: ValidationConfig) -> list[Any]:
    low = ("validation.min_contrast", config.min_contrast)
    blank = [
        _between(
            "contrast", name,
            f"{what} have a contrast of at least {low[1]} grey levels ({low[0]}): remove blank "
            "images, or lower the limit.",
            detail="has a contrast of {contrast} grey levels", low=low, severity=severity,
            row_condition=DECODES & Column("split").is_in(list(checked)),
        )
        for name, what, checked, severity in (
            ("image_not_blank", "Train, val and calibration images", FITTED, ERROR),
            ("test_image_not_blank", "Test images", (TEST,), WARNING),
        )
    ]  # fmt: skip
    metadata = "The metadata of every image can be read (else they are ignored)."
    return [*blank, _warn("note", "metadata_readable", metadata)]


def _splits() -> list[Any]:
    in_test = Column("split") == TEST
    good = "train, val and calibration contain only good images: move others to test."
    meta = _meta("only_good_outside_test", good, detail="is {label} ({defect_type}) in {split}")
    fitted = Column("split").is_in(list(FITTED))
    return [
        gxe.ExpectColumnValuesToBeInSet(
            column="label", value_set=[GOOD], row_condition=fitted, meta=meta
        ),
        _empty("other_label_duplicate_of", "one_label",
               "No two images with equal pixels have different labels: remove the wrong one."),
        _warn("other_category_duplicate_of", "one_category",
              "No two images with equal pixels are in different categories."),
        _empty(
            "duplicate_of",
            "not_in_train_and_test",
            "No test image has the same pixels as a train, val or calibration image.",
            row_condition=in_test,
        ),
        _warn(
            "copy_of",
            "no_copies",
            "No two train, val or calibration images of a category have equal pixels (copies count "
            "once).",
        ),
        _warn(
            "near_duplicate_of",
            "no_near_duplicates",
            "No test image is a near-duplicate of a train, val or calibration image.",
            row_condition=in_test,
        ),
        _warn(
            "unseen_mode",
            "mode_seen_in_train",
            "Every mode of a category occurs in its train images (else colour alone may separate "
            "defective from good images).",
        ),
    ]  # fmt: skip


def _mask_files() -> list[Any]:
    size = _meta(
        "mask_size",
        "Every mask has the size of its image: draw it again at the size of the image.",
        "mask_size",
        detail="is {size} and its mask {mask_path} {mask_size}",
    )
    return [
        _empty(
            "mask_read_error",
            "mask_exists",
            "Every defective image of a category with masks has a mask that can be decoded: draw "
            "it, or remove the mask folder of a category without masks.",
        ),
        gxe.ExpectColumnPairValuesToBeEqual(
            column_A="size",
            column_B="mask_size",
            row_condition=HAS_MASK & DECODES,
            meta=size,
        ),
    ]


def _mask_values(config: ValidationConfig) -> list[Any]:
    filled = _meta(
        "mask_not_empty",
        "No mask is empty: draw the defect in non-zero pixels, or move the image to the good ones.",
        "mask_pixels",
        detail="has the mask {mask_path} with no defective pixel",
    )
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="mask_pixels", min_value=1, row_condition=HAS_MASK, meta=filled
        ),
        _empty(
            "shares_mask_with",
            "mask_of_one_image",
            "No two images have the same mask file: add a mask for each, or rename one.",
        ),
        _warn(
            "lossy_mask",
            "mask_lossless",
            "No mask is a JPEG or a lossy WebP, whose compression makes pixels beside a defect "
            "non-zero.",
        ),
        _warn(
            "mask_note",
            "mask_ground_is_zero",
            "The background of every mask is zero (else the border defines it: check the mask).",
        ),
        _between(
            "mask_share",
            "mask_not_most",
            f"No mask marks more than {config.max_mask_share:g} of its image "
            "(validation.max_mask_share), as an inverted mask does: check the mask.",
            detail="marks {mask_share} of the image",
            high=("validation.max_mask_share", config.max_mask_share),
            severity=WARNING,
            row_condition=HAS_MASK,
        ),
        _warn(
            "mask_turn_error", "mask_turned", "Every mask has the EXIF orientation of its image."
        ),
    ]


def _meta(
    name: str,
    description: str,
    *columns: str,
    severity: str = ERROR,
    detail: str = "",
    limits: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Metadata of a check for `suite`.

    `detail` is a format string with column names that describes a failed row. Without it, the
    description consists of the values of `columns`. `limits` are those of `_between`.
    """
    return {
        "name": name,
        "description": description,
        "severity": severity,
        "columns": list(columns),
        "detail": detail,
        "limits": limits,
    }


def _empty(
    column: str, name: str, description: str, *, severity: str = ERROR, **options: Any
) -> gxe.Expectation:
    """Expect a column of error messages to be empty strings."""
    meta = _meta(name, description, column, severity=severity)
    return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=[""], meta=meta, **options)


def _warn(column: str, name: str, description: str, **options: Any) -> gxe.Expectation:
    return _empty(column, name, description, severity=WARNING, **options)


def _between(
    column: str,
    name: str,
    description: str,
    *,
    detail: str,
    low: tuple[str, float] | None = None,
    high: tuple[str, float] | None = None,
    severity: str = ERROR,
    **options: Any,
) -> gxe.Expectation:
    """Expect numbers within limits, which are pairs of parameter name and value."""
    limits = {"column": column, "low": low, "high": high}
    return gxe.ExpectColumnValuesToBeBetween(
        column=column,
        min_value=low and low[1],
        max_value=high and high[1],
        meta=_meta(name, description, severity=severity, detail=detail, limits=limits),
        **options,
    )


def _at_least(
    column: str, least: tuple[str, int], name: str, description: str, *, severity: str = ERROR
) -> gxe.Expectation:
    detail = f"has {{{column}}} {UNITS[column]}"
    return _between(column, name, description, detail=detail, low=least, severity=severity)
