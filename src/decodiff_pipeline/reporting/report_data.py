"""What the report says, taken from the results: nothing here knows of HTML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.evaluation.predictions import file_stem
from decodiff_pipeline.metrics.summary import (
    COMPARED,
    METRICS,
    beats,
    mean_over_categories,
    measured,
)
from decodiff_pipeline.reporting.charts import Chart, Histogram, draw_curves, draw_histogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

BASELINES = {"pca": "PCA", "autoencoder": "AE"}


@dataclass(frozen=True)
class BaselineFigure:
    """What a baseline reaches in one metric.

    Attributes:
        name: Of the baseline.
        value: Of the metric.
        beaten: By the model; ``None`` where the two are not compared.
    """

    name: str
    value: float
    beaten: bool | None


@dataclass(frozen=True)
class Cell:
    """One metric of one category.

    Attributes:
        value: ``None`` where there is nothing to measure.
        interval: Low and high, if known.
        baselines: The baselines that have the metric.
        seeds: ``mean``, ``std`` and ``n`` over training seeds, if known.
    """

    value: float | None
    interval: Sequence[float] | None
    baselines: list[BaselineFigure]
    seeds: Mapping[str, Any] | None


@dataclass(frozen=True)
class Row:
    """A line of the summary.

    Attributes:
        name: Of the category; "mean" for the last line.
        anchor: Of its section; "" for the mean.
        n_good: Test images.
        n_defective: Test images.
        cells: One for each metric.
    """

    name: str
    anchor: str
    n_good: int | None
    n_defective: int | None
    cells: list[Cell]


@dataclass(frozen=True)
class MetricTable:
    """Metrics of several groups of images; columns that no group has are left out.

    Attributes:
        columns: Names of the metrics.
        rows: (name of the group, number of images, values).
    """

    columns: list[str]
    rows: list[tuple[str, int | None, list[float | None]]]


@dataclass(frozen=True)
class Section:
    """Everything about one category.

    Attributes:
        name: Of the category.
        anchor: Unique, and safe in an address.
        metrics: The category's entry in ``metrics.json``.
        threshold: Its entry in ``thresholds.json``, {} without one.
        charts: ROC, precision and recall, PRO.
        histogram: Of the scores.
        defect_types: Metrics by type of defect, if there are types.
        leakage: Metrics with and without near-duplicates, if they were looked for.
        synthetic: Localisation on synthetic defects, where there are no masks.
    """

    name: str
    anchor: str
    metrics: Mapping[str, Any]
    threshold: Mapping[str, Any]
    charts: list[Chart]
    histogram: Histogram | None
    defect_types: MetricTable | None
    leakage: MetricTable | None
    synthetic: MetricTable | None


def summarise(metrics: Mapping[str, Any]) -> tuple[dict[str, str], list[Row]]:
    """The summary table.

    Args:
        metrics: The content of ``metrics.json``; every key but ``categories`` may be missing.

    Returns:
        The metrics' keys and names, and a row for each category and, last, the mean.
    """
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


def describe(
    name: str,
    metrics: Mapping[str, Any],
    thresholds: Mapping[str, Any],
    curves: Mapping[str, Any],
    index: pd.DataFrame,
) -> Section:
    """Gather everything about one category.

    Args:
        name: Of the category.
        metrics: The content of ``metrics.json``.
        thresholds: As `thresholds.fit_thresholds` returns them.
        curves: The content of ``curves.json``, or {}.
        index: Of the predictions, labelled by the protocol.
    """
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


def changed(comparison: Mapping[str, Any]) -> list[str]:
    """The metrics that a comparison has for at least one category, in the usual order."""
    entries = (comparison.get("categories") or {}).values()
    found = {metric for entry in entries for metric in entry.get("metrics") or {}}
    return [metric for metric in METRICS if metric in found]


def flatten(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Facts of any depth as (name, value), underscores as spaces; a dash for nothing."""
    pairs = []
    for key, value in facts.items():
        name = str(key).replace("_", " ")
        if isinstance(value, dict):
            pairs += [(f"{name} {inner}", text) for inner, text in flatten(value)]
        else:
            pairs.append((name, _text(value)))
    return pairs


def _text(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
