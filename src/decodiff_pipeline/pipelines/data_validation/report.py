"""The validation report as one HTML page that loads nothing from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from decodiff_pipeline.errors import ImageError
from decodiff_pipeline.reporting.page import render_page
from decodiff_pipeline.reporting.pictures import thumbnail_uri

if TYPE_CHECKING:
    from PIL import Image

    from decodiff_pipeline.data.images import ImageFolder

THUMBNAIL = 112  # pixels, the longer side
PICTURED = 12  # offenders of a check that are shown as pictures
LISTED = 200  # offenders of a check, or files left out for a reason; the JSON report has all


def render(report: dict[str, Any], images: ImageFolder) -> str:
    """Renders a report as HTML, values escaped, thumbnails embedded.

    Args:
        report: As `nodes.validate` makes it.
        images: Where the thumbnails come from.
    """
    checks = [
        check
        | {
            "offenders": [
                _pictured(images, one, i) for i, one in enumerate(check["offenders"][:LISTED])
            ]
        }
        for check in report["checks"]
    ]
    return render_page(
        "data_validation.html.j2",
        **report | {"checks": checks},
        splits=("train", "val", "calibration", "test", "excluded"),
        listed=LISTED,
    )


def _pictured(images: ImageFolder, offender: dict[str, str], position: int) -> dict[str, Any]:
    """Adds thumbnails of the image and of its mask or double to the first offenders."""
    if position >= PICTURED:
        return offender | {"pictures": []}
    pictures = [thumbnail(images, offender[key], key) for key in ("path", "related")]
    return offender | {"pictures": [picture for picture in pictures if picture]}


def thumbnail(images: ImageFolder, path: str, kind: str) -> dict[str, str] | None:
    """Returns {"uri", "path"} of a small PNG as a data URI, or None where nothing can be read."""
    if not path:
        return None
    try:
        image = images.read(path)
    except ImageError:
        return None
    if kind == "related":
        image = _stretched(image)
    return {"uri": thumbnail_uri(image, THUMBNAIL), "path": path}


def _stretched(image: Image.Image) -> Image.Image:
    """Makes a mask of small integers visible."""
    from PIL import ImageOps

    return ImageOps.autocontrast(image)
