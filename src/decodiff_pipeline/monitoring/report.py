"""The monitoring as one HTML page that loads nothing from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from decodiff_pipeline.errors import ImageError
from decodiff_pipeline.monitoring.features import label
from decodiff_pipeline.reporting.page import render_page
from decodiff_pipeline.reporting.pictures import thumbnail_uri

if TYPE_CHECKING:
    from collections.abc import Mapping

    from decodiff_pipeline.monitoring.source import RecentSource

THUMBNAIL = 160  # pixels, the longer side
LISTED = 100  # unreadable images; the JSON has all


def render_report(answer: Mapping[str, Any], source: RecentSource) -> str:
    """Render what was found, every value escaped and every picture embedded.

    Args:
        answer: As `judgement.judge` returned it.
        source: Where the thumbnails come from.
    """
    unusual = [one | {"picture": thumbnail(source, one["path"])} for one in answer["unusual"]]
    return render_page(
        "monitoring.html.j2",
        answer=answer,
        unusual=unusual,
        unreadable=answer["unreadable"][:LISTED],
        label=label,
    )


def thumbnail(source: RecentSource, path: str) -> str | None:
    """A small PNG as a data URI; ``None`` where the image is not there any more."""
    try:
        image = source.read(path)
    except ImageError:
        return None
    return thumbnail_uri(image, THUMBNAIL)
