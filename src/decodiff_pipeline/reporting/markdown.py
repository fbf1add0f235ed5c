"""The evaluation as Markdown, for a comment on a pull request."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.metrics.summary import COMPARED, MEAN, METRICS, beats, measured
from decodiff_pipeline.reporting.formatting import (
    MAX_ITEMS,
    escaped,
    listed,
    markdown_table,
    number,
    percent,
    signed,
    significant,
)
from decodiff_pipeline.reporting.summary import changes_of_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_CHARACTERS = 60_000  # GitHub's limit of a comment is 65,536
MAX_CATEGORIES = 40
SIGNS = {"better": "▲", "worse": "▼", "no significant difference": "–", None: ""}  # noqa: RUF001
BASELINE_NAMES = {"pca": "PCA", "autoencoder": "autoencoder"}


def render_summary(
    metrics: Mapping[str, Any], comparison: Mapping[str, Any], identity: Mapping[str, Any]
) -> str:
    """Render ``evaluation.md``.

    If there are too many categories for a comment, those that changed significantly or do not beat
    a baseline come first, and the last ones are only counted.

    Args:
        comparison: See `comparison.compare`.
        identity: Names and values of the line that identifies model and data; ``None`` values are
            left out.

    Returns:
        Markdown for GitHub with at most `MAX_CHARACTERS` characters. All names are escaped.
    """
    names = _ordered(metrics, comparison)
    count = min(len(names), MAX_CATEGORIES)
    page = _page(metrics, comparison, identity, names[:count])
    while len(page) > MAX_CHARACTERS and count:
        count //= 2
        page = _page(metrics, comparison, identity, names[:count])
    return page[:MAX_CHARACTERS]


def _page(
    metrics: Mapping[str, Any],
    comparison: Mapping[str, Any],
    identity: Mapping[str, Any],
    names: Sequence[str],
) -> str:
    total = len(metrics["categories"])
    hidden = total - len(names)
    blocks: list[str] = [
        "## Evaluation",
        _verdict(metrics, comparison),
        _metric_table(metrics, comparison, names),
        f"{hidden} more of the {total} categories are in the report." if hidden else "",
        _change_table(comparison, names),
        _baseline_table(metrics, names),
        _decision_table(metrics, names),
        _seed_table(metrics, names),
        _leakage(metrics),
        _notes(comparison),
        _identity(metrics, identity),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _ordered(metrics: Mapping[str, Any], comparison: Mapping[str, Any]) -> list[str]:
    """Categories by name; if there are more than `MAX_CATEGORIES`, by importance."""
    names = sorted(metrics["categories"])
    if len(names) <= MAX_CATEGORIES:
        return names

    def priority(name: str) -> tuple[int, str]:
        rows = comparison["categories"].get(name, {}).get("metrics", {}).values()
        verdicts = {row["verdict"] for row in rows}
        criteria = [
            "worse" in verdicts,
            any(_is_unbeaten(metrics, baseline, name) for baseline in BASELINE_NAMES),
            "better" in verdicts,
        ]
        return (criteria.index(True) if True in criteria else len(criteria)), name

    return sorted(names, key=priority)


def _verdict(metrics: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    name = escaped(comparison["reference"])
    if comparison["outcome"] == "none":
        return "Not compared with another model (`evaluation.compare_with`)."
    if comparison["outcome"] == "not_compared":
        return f"Not compared with {name}; the notes give the reason."
    if comparison["outcome"] == "without_significance":
        return f"Compared with {name} by the metrics alone, without a significance test."
    counts = Counter(
        row["verdict"]
        for category in comparison["categories"].values()
        for row in category["metrics"].values()
    )
    text = (
        f"Compared with **{name}** on the same images: of the metrics of all categories "
        f"{counts['better']} are better, {counts['worse']} worse and "
        f"{counts['no significant difference']} not significantly different"
    )
    mean = ", ".join(changes_of_mean(comparison))
    means = f"; mean: {mean}" if mean else ""
    return f"{text}{means}. Confidence {comparison['confidence']:.0%} for each metric separately."


def _leakage(metrics: Mapping[str, Any]) -> str:
    affected = []
    for name, row in metrics["categories"].items():
        leak = row["leakage"]
        if leak and leak["without"]:
            affected.append(
                f"{escaped(name)} {leak['n_good'] + leak['n_defective']} (image AUROC "
                f"{number(row['image_auroc'])}, without them "
                f"{number(leak['without']['image_auroc'])})"
            )
    if affected:
        return f"Test images with a near-duplicate in another split: {listed(affected)}."
    checked = any(row["leakage"] for row in metrics["categories"].values())
    return "No test image has a near-duplicate in another split." if checked else ""


def _notes(comparison: Mapping[str, Any]) -> str:
    # Word by word, since a longer text would be cut.
    notes = [f"- {' '.join(map(escaped, note.split()[:100]))}" for note in comparison["notes"]]
    if len(notes) > MAX_ITEMS:
        notes = [*notes[:MAX_ITEMS], f"- and {len(notes) - MAX_ITEMS} more, in comparison.json"]
    return "\n".join(["Notes:", "", *notes]) if notes else ""


def _identity(metrics: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    values = {
        "protocol": metrics.get("protocol"),
        "resolution": metrics.get("resolution"),
        **identity,
    }
    items = [f"{key} {escaped(value)}" for key, value in values.items() if value is not None]
    return f"<sub>{' · '.join(items)}</sub>"


def _metric_table(
    metrics: Mapping[str, Any], comparison: Mapping[str, Any], names: Sequence[str]
) -> str:
    columns = measured(metrics)
    rows = [["category", "good", "defective", *(METRICS[name] for name in columns)]]
    for name, row, changes in _with_mean(metrics, comparison, names):
        counts = [str(row.get(key, "")) for key in ("n_good", "n_defective")]
        rows.append([name, *counts, *(_cell(row, metric, changes) for metric in columns)])
    return markdown_table(rows)


def _with_mean(
    metrics: Mapping[str, Any], comparison: Mapping[str, Any], names: Sequence[str]
) -> Iterable[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Displayed name, metrics and changes of each category and of the mean."""
    for name in names:
        changes = comparison["categories"].get(name, {}).get("metrics", {})
        yield escaped(name), metrics["categories"][name], changes
    changes = comparison["mean"].get("metrics", {})
    yield f"**{MEAN}**", metrics["mean"], changes


def _cell(row: Mapping[str, Any], metric: str, changes: Mapping[str, Any]) -> str:
    value = row.get(metric)
    if value is None:
        return "-"
    interval = row["intervals"].get(metric)
    text = f"{value:.3f}"
    if interval is not None:
        text += f" <sub>{interval[0]:.3f}…{interval[1]:.3f}</sub>"
    sign = SIGNS[changes[metric]["verdict"]] if metric in changes else ""
    return f"{text} {sign}".rstrip()


def _change_table(comparison: Mapping[str, Any], names: Sequence[str]) -> str:
    """Significant or untested differences of categories, and all differences of the mean."""
    rows = [["category", "metric", "change", "interval", "p", ""]]
    for name in names:
        changes = comparison["categories"].get(name, {}).get("metrics", {})
        rows += [
            [escaped(name), *_change(metric, row)]
            for metric, row in changes.items()
            if row["verdict"] in ("better", "worse", None)
        ]
    mean_changes = comparison["mean"].get("metrics", {})
    rows += [[f"**{MEAN}**", *_change(metric, row)] for metric, row in mean_changes.items()]
    if len(rows) == 1:
        return ""
    return f"### Change against {escaped(comparison['reference'])}\n\n{markdown_table(rows)}"


def _change(metric: str, row: Mapping[str, Any]) -> list[str]:
    label, difference, verdict = METRICS[metric], signed(row["difference"]), row["verdict"]
    if verdict is None:
        return [label, difference, "-", "-", "not tested"]
    interval = f"{signed(row['low'])} … {signed(row['high'])}"
    return [label, difference, interval, f"{row['p_value']:.3f}", f"{SIGNS[verdict]} {verdict}"]


def _baseline_table(metrics: Mapping[str, Any], names: Sequence[str]) -> str:
    """Metrics of the baselines, and the categories in which the model does not beat them."""
    baselines = [key for key in BASELINE_NAMES if metrics["baseline"].get(key)]
    if not baselines:
        return ""
    columns = [metric for metric in COMPARED if metric in measured(metrics)]
    header = ["category"]
    for metric in columns:
        header += [METRICS[metric], *(BASELINE_NAMES[key] for key in baselines)]
    rows = [header]
    for name in names:
        cells = [escaped(name)]
        for metric in columns:
            cells.append(number(metrics["categories"][name].get(metric)))
            cells += [_baseline(metrics, key, name, metric) for key in baselines]
        rows.append(cells)
    unbeaten = {
        key: [escaped(name) for name in metrics["categories"] if _is_unbeaten(metrics, key, name)]
        for key in baselines
    }
    sentences = [
        f"Not above the {BASELINE_NAMES[key]} baseline: {listed(categories)}."
        if categories
        else f"Every category that can be measured is above the {BASELINE_NAMES[key]} baseline."
        for key, categories in unbeaten.items()
    ]
    return "### Baselines\n\n" + " ".join(sentences) + "\n\n" + markdown_table(rows)


def _baseline(metrics: Mapping[str, Any], baseline: str, name: str, metric: str) -> str:
    value = metrics["baseline"][baseline].get(name, {}).get(metric)
    unbeaten = beats(metrics["categories"][name].get(metric), value) is False
    return f"**{number(value)}** (not beaten)" if unbeaten else number(value)


def _is_unbeaten(metrics: Mapping[str, Any], baseline: str, name: str) -> bool:
    values = metrics["baseline"].get(baseline, {}).get(name, {})
    model = metrics["categories"][name]
    return any(beats(model.get(metric), values.get(metric)) is False for metric in COMPARED)


def _decision_table(metrics: Mapping[str, Any], names: Sequence[str]) -> str:
    formats = {
        "threshold": lambda value: significant(value, 4),
        "promised_false_positive_rate": percent,
        "false_positive_rate": percent,
        "false_negative_rate": percent,
    }
    rows = [["category", "threshold", "target false alarms", "false alarms", "missed"]]
    for name in names:
        values = metrics["categories"][name]
        rows.append([escaped(name), *(text(values.get(key)) for key, text in formats.items())])
    return f"### Decisions at the threshold\n\n{markdown_table(rows)}"


def _seed_table(metrics: Mapping[str, Any], names: Sequence[str]) -> str:
    """Variation of the metrics over training seeds; empty with one seed."""
    spreads = metrics.get("seeds", {})
    rows = [["category", "metric", "seeds", "mean ± standard deviation", "least … largest"]]
    for name in (*names, MEAN):
        for metric in COMPARED:
            spread = spreads.get(name, {}).get(metric)
            if spread is not None:
                label = f"**{MEAN}**" if name == MEAN else escaped(name)
                mean = f"{spread['mean']:.3f} ± {spread['std']:.3f}"
                extremes = f"{spread['low']:.3f} … {spread['high']:.3f}"
                rows.append([label, METRICS[metric], str(spread["n"]), mean, extremes])
    return f"### Spread over training seeds\n\n{markdown_table(rows)}" if len(rows) > 1 else ""
