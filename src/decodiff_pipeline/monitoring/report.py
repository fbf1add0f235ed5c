"""The monitoring as one HTML page that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.errors import ImageError
from decodiff_pipeline.monitoring.features import label

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
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("decodiff_pipeline.reporting", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "label": label}
    unusual = [one | {"picture": thumbnail(source, one["path"])} for one in answer["unusual"]]
    return environment.get_template("monitoring.html.j2").render(
        answer=answer, unusual=unusual, unreadable=answer["unreadable"][:LISTED]
    )


def number(value: float | None) -> str:
    """Three digits, or a dash for nothing."""
    return "-" if value is None else f"{value:.3g}"


def thumbnail(source: RecentSource, path: str) -> str | None:
    """A small PNG as a data URI; ``None`` where the image is not there any more."""
    try:
        image = source.read(path)
    except ImageError:
        return None
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
