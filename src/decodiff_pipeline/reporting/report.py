"""The evaluation report as one self-contained HTML page."""

from __future__ import annotations

import base64
import glob
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.errors import ImageError
from decodiff_pipeline.evaluation.predictions import file_stem
from decodiff_pipeline.metrics.summary import (
    COMPARED,
    MEAN,
    METRICS,
    baselines_with_mean,
    beats,
    measured,
)
from decodiff_pipeline.reporting import charts
from decodiff_pipeline.reporting.charts import Chart, Histogram, draw_curves, draw_histogram
from decodiff_pipeline.reporting.gallery import make_gallery
from decodiff_pipeline.reporting.page import render_page
from decodiff_pipeline.reporting.pictures import data_uri, fitted
from decodiff_pipeline.reporting.summary import verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.evaluation.predictions import PredictionStore

REVIEWED = 12  # training images per category; training_review.json has all
THUMBNAIL = 160  # pixels, the longer side
THUMBNAIL_BYTES = 6_000
BASELINE_NAMES = {"pca": "PCA", "autoencoder": "AE"}


@dataclass(frozen=True)
class ReportInput:
    """The inputs of the report."""

    metrics: Mapping[str, Any]  # content of ``metrics.json``
    thresholds: Mapping[str, Any]  # content of ``thresholds.json``
    index: pd.DataFrame  # index of the predictions, labelled by `protocols.labelled`
    predictions: PredictionStore
    images: ImageFolder
    curves: Mapping[str, Any] = field(default_factory=dict)  # content of ``curves.json``
    # model, data, Git and DVC revision: names and values, nested
    identity: Mapping[str, Any] = field(default_factory=dict)
    # content of ``training_review.json``
    training_review: Mapping[str, Any] = field(default_factory=dict)
    comparison: Mapping[str, Any] = field(default_factory=dict)  # content of ``comparison.json``
    gallery_images: int = 500  # largest number of test images in the gallery


@dataclass(frozen=True)
class BaselineFigure:
    """One metric of a baseline."""

    name: str
    value: float
    beaten: bool | None  # by the model; None if the metric is not compared


@dataclass(frozen=True)
class Cell:
    """One metric of one category; ``None`` if it was not measured."""

    value: float | None
    interval: Sequence[float] | None
    baselines: list[BaselineFigure]
    seeds: Mapping[str, Any] | None  # mean, std and n over training seeds


@dataclass(frozen=True)
class Row:
    """A line of the summary: a category, or the mean, which has no anchor."""

    name: str
    anchor: str
    n_good: int | None
    n_defective: int | None
    cells: list[Cell]


@dataclass(frozen=True)
class MetricTable:
    """Metrics of groups of images, without the metrics that no group has."""

    columns: list[str]
    rows: list[tuple[str, int | None, list[float | None]]]  # group, images, values


@dataclass(frozen=True)
class Section:
    """The report's section of one category; ``None`` for parts that it lacks."""

    name: str
    anchor: str
    metrics: Mapping[str, Any]  # its entry in metrics.json
    threshold: Mapping[str, Any]  # its entry in thresholds.json
    charts: list[Chart]
    histogram: Histogram | None
    defect_types: MetricTable | None
    leakage: MetricTable | None  # with and without near-duplicates
    synthetic: MetricTable | None
    counted_share: float | None  # share of an image inside the scored region, if there is one


def render_report(given: ReportInput) -> str:
    """Render the report as HTML, with all values escaped and all pictures embedded.

    The page's content security policy allows only its own style, script and embedded pictures.
    """
    # Inserted unescaped: they contain no values.
    style, script = (render_page(name) for name in ("report.css", "report.js"))
    metrics, thresholds = given.metrics, given.thresholds
    names, rows = _summary(metrics)
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
            _section(name, metrics, thresholds, given.curves, given.index)
            for name in metrics["categories"]
        ],
        false_positive_rate=thresholds["false_positive_rate"],
        gallery=make_gallery(
            given.index, given.predictions, given.images, thresholds, given.gallery_images
        ),
        verdict=verdict(metrics, given.comparison),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        dataset=given.images.path.name,
        version=given.identity.get("registered_version"),
        identity=_flat(given.identity),
        about=given.predictions.about(),
        counts=given.index["split"].value_counts().to_dict(),
        comparison=given.comparison,
        changed_metrics=_changed(given.comparison),
        review=_review(given.training_review, given.images),
        charts=charts,
    )


def _digest(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _review(
    training_review: Mapping[str, Any], images: ImageFolder
) -> dict[str, list[dict[str, Any]]]:
    """The most unusual training images of each category, with thumbnails."""
    return {
        category: [
            entry
            | {"pattern": glob.escape(entry["path"])}
            | {"thumbnail": _thumbnail(entry["path"], images)}
            for entry in entries[:REVIEWED]
        ]
        for category, entries in training_review.items()
        if entries
    }


def _thumbnail(path: str, images: ImageFolder) -> str | None:
    """A data URI; ``None`` if the image cannot be read any more."""
    try:
        image = images.read(path)
    except ImageError:
        return None
    return data_uri(image.resize(fitted(image.size, THUMBNAIL)), THUMBNAIL_BYTES)


def _summary(metrics: Mapping[str, Any]) -> tuple[dict[str, str], list[Row]]:
    """Keys and names of the metrics; a row for each category and a last one for the mean."""
    names = {name: METRICS[name] for name in measured(metrics)}
    baselines, seeds = baselines_with_mean(metrics), metrics.get("seeds", {})
    rows = []
    for name, entry in {**metrics["categories"], MEAN: metrics["mean"]}.items():
        others = {key: values.get(name, {}) for key, values in baselines.items()}
        cells = [_cell(metric, entry, others, seeds.get(name, {})) for metric in names]
        anchor = "" if name == MEAN else _anchor(name)
        rows.append(Row(name, anchor, entry.get("n_good"), entry.get("n_defective"), cells))
    return names, rows


def _cell(
    metric: str,
    entry: Mapping[str, Any],
    baselines: Mapping[str, Mapping[str, Any]],
    seeds: Mapping[str, Any],
) -> Cell:
    value = entry[metric]
    figures = [
        BaselineFigure(
            BASELINE_NAMES[key], figure, beats(value, figure) if metric in COMPARED else None
        )
        for key, baseline in baselines.items()
        if (figure := baseline.get(metric)) is not None
    ]
    return Cell(value, entry["intervals"].get(metric), figures, seeds.get(metric))


def _section(
    name: str,
    metrics: Mapping[str, Any],
    thresholds: Mapping[str, Any],
    curves: Mapping[str, Any],
    index: pd.DataFrame,
) -> Section:
    entry = metrics["categories"][name]
    rows = index[(index["category"] == name) & (index["split"] == "test")]
    threshold = thresholds["categories"][name]
    synthetic = entry["synthetic"]
    return Section(
        name=name,
        anchor=_anchor(name),
        metrics=entry,
        threshold=threshold,
        charts=draw_curves(curves.get(name, {}), metrics["aupro_limit"]),
        histogram=draw_histogram(rows, threshold["threshold"]),
        defect_types=_table(
            (kind, group["n"], group) for kind, group in entry["defect_types"].items()
        ),
        leakage=_leakage(entry),
        synthetic=_table([("synthetic defects", synthetic["n"], synthetic)]) if synthetic else None,
        counted_share=metrics.get("regions", {}).get(name, {}).get("share"),
    )


def _anchor(name: str) -> str:
    return f"category-{file_stem(name)}"


def _leakage(entry: Mapping[str, Any]) -> MetricTable | None:
    """Metrics with and without near-duplicates; ``None`` if there are none or none were checked."""
    leakage = entry["leakage"]
    if not leakage or not leakage["without"]:
        return None
    total = entry["n_good"] + entry["n_defective"]
    rest = total - leakage["n_good"] - leakage["n_defective"]
    return _table([("all images", total, entry), ("without them", rest, leakage["without"])])


def _table(groups: Iterable[tuple[str, int | None, Mapping[str, Any]]]) -> MetricTable | None:
    groups = list(groups)
    columns = [m for m in METRICS if any(group.get(m) is not None for _, _, group in groups)]
    if not groups or not columns:
        return None
    rows = [(name, n, [group.get(metric) for metric in columns]) for name, n, group in groups]
    return MetricTable([METRICS[metric] for metric in columns], rows)


def _changed(comparison: Mapping[str, Any]) -> list[str]:
    """The metrics that a comparison has for at least one category, in the order of `METRICS`."""
    entries = comparison.get("categories", {}).values()
    compared = {metric for entry in entries for metric in entry["metrics"]}
    return [metric for metric in METRICS if metric in compared]


def _flat(tree: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested values as (name, text), with spaces instead of underscores and "-" for no value."""
    pairs = []
    for key, value in tree.items():
        name = str(key).replace("_", " ")
        if isinstance(value, dict):
            pairs += [(f"{name} {inner}", text) for inner, text in _flat(value)]
        else:
            pairs.append((name, _text(value)))
    return pairs


def _text(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
