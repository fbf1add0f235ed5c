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
DECODES = Column("error") == ""
HAS_MASK = Column("mask_width") > 0
# What `tables.category_table` counts.
UNITS = {
    "images": "images",
    "train": "good train images",
    "val": "good val images",
    "calibration": "good calibration images",
    "test_both": "test images of the rarer label",
}


def image_expectations(config: ValidationConfig) -> list[Any]:
    """Returns the expectations on `tables.image_table`, in the report's order."""
    return [
        *_files(config), *_contents(config), *_splits(), *_mask_files(), *_mask_values(config)
    ]  # fmt: skip


def file_expectations() -> list[Any]:
    """Returns the expectations on `tables.file_table`."""
    return [
        _empty("link_error", "no_links", f"No file is a link: {LINK_CURE}."),
        _warn(
            "unlisted_error",
            "image_in_its_place",
            "Every image file lies where the layout looks for images or masks (others are left "
            "out: move them, or name them under data.exclude).",
        ),
    ]


def category_expectations(config: ValidationConfig) -> list[Any]:
    """Returns the expectations on `tables.category_table`, in the report's order."""
    train = ("validation.min_train_images", config.min_train_images)
    held_out = ("validation.min_held_out_images", config.min_held_out_images)
    every = "Every category has at least"
    fewer = "add images, or lower"
    return [
        _at_least("images", ("data.categories", 1), "category_exists",
                  "Every category in data.categories has images: correct the name, or take it "
                  "out."),
        _at_least("train", train, "enough_train_images",
                  f"{every} {train[1]} good train images: {fewer} {train[0]}, "
                  "or leave the category out with data.exclude."),
        _at_least("val", held_out, "enough_val_images",
                  f"{every} {held_out[1]} good val images, which held-out loss and fitted limits "
                  f"need: {fewer} {held_out[0]}, or raise data.val_fraction.", severity=WARNING),
        _at_least("calibration", held_out, "enough_calibration_images",
                  f"{every} {held_out[1]} good calibration images, of which the threshold is a "
                  f"quantile: {fewer} {held_out[0]}, or raise data.calibration_fraction.",
                  severity=WARNING),
        _at_least("test_both", ("the least", 1), "test_has_both_labels",
                  "Every category has good and defective test images (else there is little to "
                  "measure): add some of both.", severity=WARNING),
    ]  # fmt: skip


def _files(config: ValidationConfig) -> list[Any]:
    modes = _meta(
        "image_mode",
        f"The mode is among {', '.join(config.modes)} (validation.modes): convert the image, or "
        "add its mode.",
        detail="has the mode {mode}, not among validation.modes",
    )
    listed = _meta(
        "path_unique",
        "No image is listed twice: take one line out of the data set's table.",
        detail="is listed twice",
    )
    return [
        _empty("read_error", "image_decodes", "Every image decodes: copy it again, or remove it."),
        _empty(
            "mask_beside",
            "no_mask_among_images",
            "No image is a mask of the image beside it, by its name: move masks to where the "
            "layout looks for them, or rename a photograph that is called so.",
        ),
        _warn(
            "same_stem_as",
            "stem_of_one_image",
            "No two images of a folder differ by their suffix only (one may be the other's mask).",
        ),
        _side("width", config),
        _side("height", config),
        gxe.ExpectColumnValuesToBeInSet(
            column="mode", value_set=list(config.modes), row_condition=DECODES, meta=modes
        ),
        _empty(
            "fit_error",
            "image_fits",
            "Every image can be brought to the model's squares (preprocessing.fit): choose another "
            "fit, or leave it out.",
        ),
        gxe.ExpectColumnValuesToBeUnique(column="path", meta=listed),
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
            f"{what} show more than one grey, {low[1]} levels of 255 or more ({low[0]}): remove "
            "what shows nothing, or lower the limit.",
            detail="has {contrast} levels between dark and bright", low=low, severity=severity,
            row_condition=DECODES & Column("split").is_in(list(found)),
        )
        for name, what, found, severity in (
            ("image_not_blank", "Train, val and calibration images", FITTED, ERROR),
            ("test_image_not_blank", "Test images", (TEST,), WARNING),
        )
    ]  # fmt: skip
    metadata = "The metadata of every image can be read (else its pixels are taken as they are)."
    return [*blank, _warn("note", "metadata_readable", metadata)]


def _splits() -> list[Any]:
    in_test = Column("split") == TEST
    good = "train, val and calibration hold only good images: move others to test."
    meta = _meta("only_good_outside_test", good, detail="is {label} ({defect_type}) in {split}")
    fitted = Column("split").is_in(list(FITTED))
    return [
        gxe.ExpectColumnValuesToBeInSet(
            column="label", value_set=[GOOD], row_condition=fitted, meta=meta
        ),
        _empty("other_label_duplicate_of", "one_label",
               "No two images of equal pixels have different labels: remove the wrong one."),
        _warn("other_category_duplicate_of", "one_category",
              "No two images of equal pixels are in different categories."),
        _empty(
            "duplicate_of",
            "not_in_train_and_test",
            "No test image has the pixels of a train, val or calibration image.",
            row_condition=in_test,
        ),
        _warn(
            "copy_of",
            "no_copies",
            "No picture is among the train, val and calibration images of a category more than "
            "once (copies count once).",
        ),
        _warn(
            "near_duplicate_of",
            "no_near_duplicates",
            "No test image looks nearly like a train, val or calibration image.",
            row_condition=in_test,
        ),
        _warn(
            "unseen_mode",
            "mode_seen_in_train",
            "Images have a mode that train images of their category have too (else colour alone "
            "may tell defective from good).",
        ),
    ]  # fmt: skip


def _mask_files() -> list[Any]:
    size = _meta(
        "mask_size",
        "Every mask has the size of its image: draw it on the image itself.",
        "mask_size",
        detail="is {size} and its mask {mask_path} {mask_size}",
    )
    return [
        _empty(
            "mask_read_error",
            "mask_exists",
            "Every defect that should have a mask has one that decodes: draw it, or remove "
            "the folder of masks where a category has none.",
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
        "No mask is empty: draw the defect, non-zero on zero, or move the image to the good ones.",
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
            "No two images have the same mask: give each one of its own, or rename one.",
        ),
        _warn(
            "lossy_mask",
            "mask_lossless",
            "No mask is a JPEG or a lossy WebP, by content, whose rounding makes pixels beside a "
            "defect non-zero.",
        ),
        _warn(
            "mask_note",
            "mask_ground_is_zero",
            "The background of every mask is zero (else its border decides: see that it is right).",
        ),
        _between(
            "mask_share",
            "mask_not_most",
            f"No mask marks more than {config.max_mask_share:g} of its picture "
            "(validation.max_mask_share), as one does that is inverted: see that it is right.",
            detail="marks {mask_share} of the picture",
            high=("validation.max_mask_share", config.max_mask_share),
            severity=WARNING,
            row_condition=HAS_MASK,
        ),
        _warn("mask_turn_error", "mask_turned", "Every mask is turned by EXIF as its image is."),
    ]


def _meta(
    name: str,
    description: str,
    *columns: str,
    severity: str = ERROR,
    detail: str = "",
    limits: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What `suite` needs to know of a check.

    `detail` says what is wrong with a row, with the names of columns in braces; without it the
    values of `columns` do. `limits` are those of `_between`.
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
    """Expects a column of complaints to hold none."""
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
    """Expects numbers within limits, each given as (setting, value)."""
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
