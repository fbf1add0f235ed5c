"""The table of results: scores, decisions and detections of each image."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from decodiff_pipeline.deco.assembly import decide
from decodiff_pipeline.deco.config import UNKNOWN
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from decodiff_pipeline.inference.store import Row

logger = logging.getLogger(__name__)

# Name and dtype of each column, in order. All columns but path, category and model are null for an
# unreadable image. For an image of unknown category, the score and its derived columns are null.
COLUMNS = {
    "path": "str",  # POSIX, relative to the source's root
    "category": "str",
    "category_certainty": "Float64",  # of a recognised category; null if the category was given
    "sha256": "str",  # digest of the file
    "width": "Int64",  # pixels, EXIF orientation applied
    "height": "Int64",
    "score": "Float64",
    "threshold": "Float64",  # null if the category has none
    "decision": "str",  # good, defective, unknown, or null without a threshold
    "pixel_threshold": "Float64",
    "flagged_pixels": "Int64",  # pixels of the full-size map at or above the pixel threshold
    "flagged_share": "Float64",  # share of all pixels of the image
    "detections": "str",  # JSON: a list of `deco.detections.Detection`, the largest first
    "map": "str",  # POSIX, relative to the folder of the results; null if none is written
    "overlay": "str",
    "model_sha256": "str",  # digest of the pipeline's files, as registered
    "error": "str",  # why the image could not be read
}


class Limits(NamedTuple):
    """The thresholds of a category; ``None`` if it was neither set nor fitted."""

    image: float | None
    pixel: float | None


def tabulate(rows: Sequence[Row], limits: Mapping[str, Limits]) -> pd.DataFrame:
    """Make the table of results, with the decision on each image.

    Returns:
        A row per image with `COLUMNS`.
    """
    return pd.DataFrame(
        [row | _decided(row, limits) for row in rows], columns=list(COLUMNS)
    ).astype(COLUMNS)


def _decided(row: Row, limits: Mapping[str, Limits]) -> Row:
    if row["score"] is None:
        nothing = dict.fromkeys(("threshold", "decision", "flagged_share", "detections"))
        return nothing | {"decision": None if row["error"] else UNKNOWN}
    threshold = limits[row["category"]].image
    flagged, pixels = row["flagged_pixels"], row["width"] * row["height"]
    detections = row["detections"]
    return {
        "threshold": threshold,
        "decision": decide(row["score"], threshold),
        "flagged_share": None if flagged is None else flagged / pixels,
        "detections": None if detections is None else json.dumps(detections),
    }


def as_coco(results: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """The detections in COCO's annotation format.

    Args:
        results: As `tabulate` returns them.

    Returns:
        ``images`` (the scored ones), ``categories`` and ``annotations``: ``bbox`` is x, y, width
        and height in the image's pixels, ``score`` the mean of the map in the region.
    """
    scored = results[results["score"].notna()]
    categories = {name: number for number, name in enumerate(sorted(set(scored["category"])), 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, row in enumerate(scored.to_dict("records"), start=1):
        size = {name: int(row[name]) for name in ("width", "height")}
        images.append({"id": number, "file_name": row["path"], **size})
        detections = json.loads(row["detections"]) if isinstance(row["detections"], str) else []
        for detection in detections:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": categories[row["category"]],
                    "bbox": [detection[name] for name in ("x", "y", "width", "height")],
                    "area": detection["area"],
                    "score": detection["mean_score"],
                    "segmentation": [],
                    "iscrowd": 0,
                }
            )
    return {
        "images": images,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
        "annotations": annotations,
    }


def require_readable(results: pd.DataFrame) -> None:
    """Check that all images could be read.

    Raises:
        DataError: With the number of unreadable images, and the error of the first.
    """
    errors = results["error"].dropna()
    if len(errors):
        raise DataError(
            f"{len(errors)} of {len(results)} images could not be scored; the first: "
            f"{errors.iloc[0].rstrip('.')} (the column `error` of the results has all of them; "
            "the other images are done)"
        )


def log_summary(results: pd.DataFrame, scored: int, folder: Path) -> None:
    """Log the numbers of scored images and of each decision.

    Args:
        results: As `tabulate` returns them.
        scored: Number of images that were scored in this run.
    """
    unreadable = int(results["error"].notna().sum())
    logger.info(
        "%d images (%d scored now): %d defective, %d good, %d of no category that the model knows, "
        "%d without a threshold, %d unreadable; see %s",
        len(results),
        scored,
        *((results["decision"] == decision).sum() for decision in ("defective", "good", UNKNOWN)),
        int(results["decision"].isna().sum()) - unreadable,
        unreadable,
        folder,
    )
