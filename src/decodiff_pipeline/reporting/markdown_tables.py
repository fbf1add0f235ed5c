"""The tables of `markdown.render_summary`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from decodiff_pipeline.metrics.summary import COMPARED, METRICS, beats, measured
from decodiff_pipeline.reporting.formatting import (
    escaped,
    listed,
    markdown_table,
    number,
    percent,
    signed,
    significant,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SIGNS = {"better": "▲", "worse": "▼", "no significant difference": "–", None: ""}  # noqa: RUF001
FLOORS = {"pca": "PCA", "autoencoder": "autoencoder"}
MEAN = "mean"


def metric_table(
    metrics: Mapping[str, Any], comparison: Mapping[str, Any], names: Sequence[str]
) -> str:
    """All metrics with their intervals, and the sign of each one's change."""
    columns = measured(metrics)
    rows = [["category", "good", "defective", *(METRICS[name] for name in columns)]]
    for name, row, changes in _with_mean(metrics, comparison, names):
        counts = [str(row.get(key, "")) for key in ("n_good", "n_defective")]
        rows.append([name, *counts, *(_cell(row, metric, changes) for metric in columns)])
    return markdown_table(rows)


def _with_mean(
    metrics: Mapping[str, Any], comparison: Mapping[str, Any], names: Sequence[str]
) -> Iterable[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Shown name, metrics and changes, of each category and then of the mean."""
    for name in names:
        changes = comparison["categories"].get(name, {}).get("metrics", {})
        yield escaped(name), metrics["categories"][name], changes
    changes = comparison["mean"].get("metrics", {})
    yield f"**{MEAN}**", metrics.get("mean", {}), changes


def _cell(row: Mapping[str, Any], metric: str, changes: Mapping[str, Any]) -> str:
    """A value, its interval, and the sign of its change."""
    value = row.get(metric)
    if value is None:
        return "-"
    interval = (row.get("intervals") or {}).get(metric)
    text = f"{value:.3f}"
    if interval is not None:
        text += f" <sub>{interval[0]:.3f}…{interval[1]:.3f}</sub>"
    sign = SIGNS[changes[metric]["verdict"]] if metric in changes else ""
    return f"{text} {sign}".rstrip()


def change_table(comparison: Mapping[str, Any], names: Sequence[str]) -> str:
    """Differences that are significant, and those of the mean; all, if none can be tested."""
    rows = [["category", "metric", "change", "interval", "p", ""]]
    for name in names:
        found = comparison["categories"].get(name, {}).get("metrics", {})
        rows += [
            [escaped(name), *_change(metric, row)]
            for metric, row in found.items()
            if row["verdict"] in ("better", "worse", None)
        ]
    of_mean = comparison["mean"].get("metrics", {})
    rows += [[f"**{MEAN}**", *_change(metric, row)] for metric, row in of_mean.items()]
    if len(rows) == 1:
        return ""
    return f"### Change against {escaped(comparison['reference'])}\n\n{markdown_table(rows)}"


def _change(metric: str, row: Mapping[str, Any]) -> list[str]:
    label, difference, verdict = METRICS[metric], signed(row["difference"]), row["verdict"]
    if verdict is None:
        return [label, difference, "-", "-", "not tested"]
    interval = f"{signed(row['low'])} … {signed(row['high'])}"
    return [label, difference, interval, f"{row['p_value']:.3f}", f"{SIGNS[verdict]} {verdict}"]


def baseline_table(metrics: Mapping[str, Any], names: Sequence[str]) -> str:
    """The baselines' figures, and where the model's are not above them."""
    floors = {key: metrics.get("baseline", {}).get(key) for key in FLOORS}
    there = [key for key, floor in floors.items() if floor]
    if not there:
        return ""
    columns = [metric for metric in COMPARED if metric in measured(metrics)]
    header = ["category"]
    for metric in columns:
        header += [METRICS[metric], *(FLOORS[key] for key in there)]
    rows = [header]
    for name in names:
        cells = [escaped(name)]
        for metric in columns:
            cells.append(number(metrics["categories"][name].get(metric)))
            cells += [_floor(metrics, key, name, metric) for key in there]
        rows.append(cells)
    unbeaten = {
        key: [escaped(name) for name in metrics["categories"] if is_unbeaten(metrics, key, name)]
        for key in there
    }
    sentences = [
        f"Not above the {FLOORS[key]} baseline: {listed(found)}."
        if found
        else f"Every category that can be measured is above the {FLOORS[key]} baseline."
        for key, found in unbeaten.items()
    ]
    return "### Baselines\n\n" + " ".join(sentences) + "\n\n" + markdown_table(rows)


def _floor(metrics: Mapping[str, Any], floor: str, name: str, metric: str) -> str:
    value = metrics["baseline"][floor].get(name, {}).get(metric)
    missed = beats(metrics["categories"][name].get(metric), value) is False
    return f"**{number(value)}** (not beaten)" if missed else number(value)


def is_unbeaten(metrics: Mapping[str, Any], floor: str, name: str) -> bool:
    """Whether a baseline is at least as good as the model in a category."""
    values = ((metrics.get("baseline") or {}).get(floor) or {}).get(name, {})
    ours = metrics["categories"][name]
    return any(beats(ours.get(metric), values.get(metric)) is False for metric in COMPARED)


def decision_table(metrics: Mapping[str, Any], names: Sequence[str]) -> str:
    """Thresholds, and what they promised and did."""
    keys = {
        "threshold": lambda value: significant(value, 4),
        "promised_false_positive_rate": percent,
        "false_positive_rate": percent,
        "false_negative_rate": percent,
    }
    rows = [["category", "threshold", "promised false alarms", "false alarms", "missed"]]
    rows += [
        [escaped(name), *(show(metrics["categories"][name].get(key)) for key, show in keys.items())]
        for name in names
    ]
    return f"### Decisions at the threshold\n\n{markdown_table(rows)}"


def seed_table(metrics: Mapping[str, Any], names: Sequence[str]) -> str:
    """How the metrics vary over training seeds; nothing where one run is all there is."""
    spreads = metrics.get("seeds") or {}
    rows = [["category", "metric", "seeds", "mean ± standard deviation", "least … largest"]]
    for name in (*names, MEAN):
        for metric in COMPARED:
            found = spreads.get(name, {}).get(metric)
            if found is not None:
                shown = f"**{MEAN}**" if name == MEAN else escaped(name)
                spread = f"{found['mean']:.3f} ± {found['std']:.3f}"
                ends = f"{found['low']:.3f} … {found['high']:.3f}"
                rows.append([shown, METRICS[metric], str(found["n"]), spread, ends])
    return f"### Spread over training seeds\n\n{markdown_table(rows)}" if len(rows) > 1 else ""
