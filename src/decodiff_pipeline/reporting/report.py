"""The evaluation as one HTML page that loads nothing from elsewhere."""

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
    METRICS,
    beats,
    mean_over_categories,
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

REVIEWED = 12  # training images shown of each category; training_review.json has all
THUMBNAIL = 160  # pixels, the longer side
THUMBNAIL_BYTES = 6_000
BASELINES = {"pca": "PCA", "autoencoder": "AE"}


@dataclass(frozen=True)
class ReportInput:
    """Everything that a report is made of."""

    metrics: Mapping[str, Any]  # the content of ``metrics.json``; only ``categories`` must be there
    thresholds: Mapping[str, Any]
    index: pd.DataFrame  # of the predictions, labelled by the protocol (`protocols.labelled`)
    predictions: PredictionStore
    images: ImageFolder
    curves: Mapping[str, Any] = field(default_factory=dict)  # the content of ``curves.json``
    # what was evaluated: model, data, Git, DVC; names and values of any depth
    identity: Mapping[str, Any] = field(default_factory=dict)
    # the content of ``training_review.json``
    training_review: Mapping[str, Any] = field(default_factory=dict)
    # the content of ``comparison.json``
    comparison: Mapping[str, Any] = field(default_factory=dict)
    gallery_images: int = 500  # test images in the gallery at most


@dataclass(frozen=True)
class BaselineFigure:
    """What a baseline reaches in one metric."""

    name: str
    value: float
    beaten: bool | None  # by the model; None where the two are not compared


@dataclass(frozen=True)
class Cell:
    """One metric of one category; ``None`` where there is nothing to measure."""

    value: float | None
    interval: Sequence[float] | None
    baselines: list[BaselineFigure]
    seeds: Mapping[str, Any] | None  # mean, std and n over training seeds


@dataclass(frozen=True)
class Row:
    """A line of the summary: a category, or the mean of all, which has no anchor."""

    name: str
    anchor: str
    n_good: int | None
    n_defective: int | None
    cells: list[Cell]


@dataclass(frozen=True)
class MetricTable:
    """Metrics of several groups of images; columns that no group has are left out."""

    columns: list[str]
    rows: list[tuple[str, int | None, list[float | None]]]  # group, images, values


@dataclass(frozen=True)
class Section:
    """Everything about one category; ``None`` for what it does not have."""

    name: str
    anchor: str
    metrics: Mapping[str, Any]  # its entry in metrics.json
    threshold: Mapping[str, Any]  # its entry in thresholds.json
    charts: list[Chart]
    histogram: Histogram | None
    defect_types: MetricTable | None
    leakage: MetricTable | None  # with near-duplicates and without
    synthetic: MetricTable | None
    counted_share: float | None  # of an image, where a region alone counts


def render_report(given: ReportInput) -> str:
    """Render the report, every value escaped and every picture embedded.

    Returns:
        The page. Its policy allows this page's own style and script and embedded pictures,
        nothing else.
    """
    # The page holds them as they are: no value goes into them.
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
        counts=_counts(given.index),
        comparison=given.comparison,
        changed_metrics=_changed(given.comparison),
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


def _summary(metrics: Mapping[str, Any]) -> tuple[dict[str, str], list[Row]]:
    """The metrics' keys and names, and a row for each category and, last, the mean."""
    shown = {name: METRICS[name] for name in measured(metrics)}
    baselines = {
        key: metrics.get("baseline", {}).get(key) or {}
        for key in BASELINES
        if key in metrics.get("baseline", {})
    }
    rows = []
    for name, entry in metrics["categories"].items():
        beside = {key: baseline.get(name) or {} for key, baseline in baselines.items()}
        seeds = (metrics.get("seeds") or {}).get(name) or {}
        cells = [_cell(metric, entry, beside, seeds) for metric in shown]
        counts = entry.get("n_good"), entry.get("n_defective")
        rows.append(Row(name, _anchor(name), *counts, cells))
    means = {key: mean_over_categories(baseline) for key, baseline in baselines.items()}
    mean, seeds = metrics.get("mean") or {}, (metrics.get("seeds") or {}).get("mean") or {}
    rows.append(
        Row("mean", "", None, None, [_cell(metric, mean, means, seeds) for metric in shown])
    )
    return shown, rows


def _cell(
    metric: str,
    entry: Mapping[str, Any],
    baselines: Mapping[str, Mapping[str, Any]],
    seeds: Mapping[str, Any],
) -> Cell:
    value = entry.get(metric)
    beside = [
        BaselineFigure(
            BASELINES[key],
            baseline[metric],
            beats(value, baseline.get(metric)) if metric in COMPARED else None,
        )
        for key, baseline in baselines.items()
        if baseline.get(metric) is not None
    ]
    return Cell(value, (entry.get("intervals") or {}).get(metric), beside, seeds.get(metric))


def _section(
    name: str,
    metrics: Mapping[str, Any],
    thresholds: Mapping[str, Any],
    curves: Mapping[str, Any],
    index: pd.DataFrame,
) -> Section:
    entry = metrics["categories"][name]
    rows = index[(index["category"] == name) & (index["split"] == "test")]
    threshold = thresholds["categories"].get(name, {})
    types = (entry.get("defect_types") or {}).items()
    synthetic = entry.get("synthetic")
    return Section(
        name=name,
        anchor=_anchor(name),
        metrics=entry,
        threshold=threshold,
        charts=draw_curves(curves.get(name) or {}, metrics.get("aupro_limit", 0.3)),
        histogram=draw_histogram(rows, threshold.get("threshold")),
        defect_types=_table((kind, group.get("n"), group) for kind, group in types),
        leakage=_leakage(entry),
        synthetic=_table([("synthetic defects", synthetic.get("n"), synthetic)])
        if synthetic
        else None,
        counted_share=(metrics.get("regions") or {}).get(name, {}).get("share"),
    )


def _anchor(name: str) -> str:
    """Of a category: no other part of the page is called that."""
    return f"category-{file_stem(name)}"


def _leakage(entry: Mapping[str, Any]) -> MetricTable | None:
    """With and without near-duplicates; ``None`` where none was found or looked for."""
    leakage = entry.get("leakage") or {}
    found = (leakage.get("n_good") or 0) + (leakage.get("n_defective") or 0)
    if not found or not leakage.get("without"):
        return None
    total = (entry.get("n_good") or 0) + (entry.get("n_defective") or 0)
    without = leakage["without"]
    return _table([("all images", total, entry), ("without them", total - found, without)])


def _table(groups: Iterable[tuple[str, int | None, Mapping[str, Any]]]) -> MetricTable | None:
    groups = list(groups)
    shown = [m for m in METRICS if any(group.get(m) is not None for _, _, group in groups)]
    if not groups or not shown:
        return None
    rows = [(name, n, [group.get(metric) for metric in shown]) for name, n, group in groups]
    return MetricTable([METRICS[metric] for metric in shown], rows)


def _changed(comparison: Mapping[str, Any]) -> list[str]:
    """The metrics that a comparison has for at least one category, in the usual order."""
    entries = (comparison.get("categories") or {}).values()
    found = {metric for entry in entries for metric in entry.get("metrics") or {}}
    return [metric for metric in METRICS if metric in found]


def _flat(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Facts of any depth as (name, value), underscores as spaces; a dash for nothing."""
    pairs = []
    for key, value in facts.items():
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
