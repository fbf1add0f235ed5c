"""The evaluation as one HTML page that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import glob
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.errors import ImageError
from decodiff_pipeline.metrics.summary import COMPARED, METRICS
from decodiff_pipeline.reporting import charts
from decodiff_pipeline.reporting.gallery import make_gallery
from decodiff_pipeline.reporting.page import render_page
from decodiff_pipeline.reporting.pictures import data_uri, fitted
from decodiff_pipeline.reporting.report_data import changed, describe, flatten, summarise

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.evaluation.predictions import PredictionStore

REVIEWED = 12  # training images shown of each category; training_review.json has all
THUMBNAIL = 160  # pixels, the longer side
THUMBNAIL_BYTES = 6_000


@dataclass(frozen=True)
class ReportInput:
    """Everything that a report is made of.

    Attributes:
        metrics: The content of ``metrics.json``; only ``categories`` must be there.
        thresholds: As `thresholds.fit_thresholds` returns them.
        index: Of the predictions, labelled by the protocol (`protocols.labelled`).
        predictions: The scored images.
        images: The raw images.
        curves: The content of ``curves.json``.
        identity: What was evaluated: model, data, Git, DVC; names and values of any depth.
        training_review: The content of ``training_review.json``.
        comparison: The content of ``comparison.json``.
        gallery_images: Test images in the gallery at most.
    """

    metrics: Mapping[str, Any]
    thresholds: Mapping[str, Any]
    index: pd.DataFrame
    predictions: PredictionStore
    images: ImageFolder
    curves: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    training_review: Mapping[str, Any] = field(default_factory=dict)
    comparison: Mapping[str, Any] = field(default_factory=dict)
    gallery_images: int = 500


def render_report(given: ReportInput) -> str:
    """Render the report, every value escaped and every picture embedded.

    Args:
        given: The results.

    Returns:
        The page. Its policy allows this page's own style and script and embedded pictures,
        nothing else.
    """
    # The page holds them as they are: no value goes into them.
    style, script = (render_page(name) for name in ("report.css", "report.js"))
    metrics, thresholds = given.metrics, given.thresholds
    names, rows = summarise(metrics)
    return render_page(
        "report.html.j2",
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src {_digest(style)}; "
        f"script-src {_digest(script)}; base-uri 'none'; form-action 'none'",
        metrics=metrics,
        names=names,
        all_names=METRICS,
        compared=[METRICS[name] for name in COMPARED],
        rows=rows,
        sections=[
            describe(name, metrics, thresholds, given.curves, given.index)
            for name in metrics["categories"]
        ],
        false_positive_rate=thresholds["false_positive_rate"],
        gallery=make_gallery(
            given.index, given.predictions, given.images, thresholds, given.gallery_images
        ),
        identity=flatten(given.identity),
        about=given.predictions.about(),
        counts=_counts(given.index),
        comparison=given.comparison,
        changed_metrics=changed(given.comparison),
        review=_review(given.training_review, given.images),
        charts=charts,
    )


def _digest(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _counts(index: pd.DataFrame) -> dict[str, int]:
    return {str(split): int(count) for split, count in index["split"].value_counts().items()}


def _review(
    training_review: Mapping[str, Any], images: ImageFolder
) -> dict[str, list[dict[str, Any]]]:
    """The most unusual training images of each category, with a thumbnail where there is one."""
    return {
        category: [
            {"score": None, "p_value": None, "reason_hint": None}
            | entry
            | {"pattern": glob.escape(str(entry["path"]))}
            | {"thumbnail": _thumbnail(str(entry["path"]), images)}
            for entry in entries[:REVIEWED]
        ]
        for category, entries in training_review.items()
        if entries
    }


def _thumbnail(path: str, images: ImageFolder) -> str | None:
    """A data URI; ``None`` where the image is gone since."""
    try:
        image = images.read(path)
    except ImageError:
        return None
    return data_uri(image.resize(fitted(image.size, THUMBNAIL)), THUMBNAIL_BYTES)
