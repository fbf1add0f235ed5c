"""The results as Markdown, to be posted as a comment on a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from decodiff_pipeline.metrics.summary import COMPARED, METRICS
from decodiff_pipeline.reporting.formatting import MAX_ITEMS, escaped, listed, number, signed
from decodiff_pipeline.reporting.markdown_tables import (
    FLOORS,
    SIGNS,
    baseline_table,
    change_table,
    decision_table,
    is_unbeaten,
    metric_table,
    seed_table,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_CHARACTERS = 60_000  # GitHub takes 65,536 in a comment
MAX_CATEGORIES = 40


def render_summary(
    metrics: Mapping[str, Any], comparison: Mapping[str, Any], identity: Mapping[str, Any]
) -> str:
    """The page ``evaluation.md``.

    Where there are many categories, those with a change or below a baseline come first and the
    others are counted only, so that the page fits into a comment.

    Args:
        metrics: As in ``metrics.json``.
        comparison: As `comparison.compare` returns it.
        identity: Names and values for the line that says what was evaluated; ``None`` is left
            out.

    Returns:
        Markdown for GitHub, at most `MAX_CHARACTERS` long. All names in it are escaped.
    """
    names = _ordered(metrics, comparison)
    shown = min(len(names), MAX_CATEGORIES)
    page = _page(metrics, comparison, identity, names[:shown])
    while len(page) > MAX_CHARACTERS and shown:
        shown //= 2
        page = _page(metrics, comparison, identity, names[:shown])
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
        metric_table(metrics, comparison, names),
        f"{hidden} more of the {total} categories are in the report." if hidden else "",
        change_table(comparison, names),
        baseline_table(metrics, names),
        decision_table(metrics, names),
        seed_table(metrics, names),
        _leakage(metrics),
        _notes(comparison),
        _identity(metrics, identity),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _ordered(metrics: Mapping[str, Any], comparison: Mapping[str, Any]) -> list[str]:
    """Categories by name; if there are too many for a comment, what matters most first."""
    names = sorted(metrics["categories"])
    if len(names) <= MAX_CATEGORIES:
        return names

    def weight(name: str) -> tuple[int, str]:
        rows = comparison["categories"].get(name, {}).get("metrics", {}).values()
        verdicts = {row["verdict"] for row in rows}
        order = [
            "worse" in verdicts,
            any(is_unbeaten(metrics, floor, name) for floor in FLOORS),
            "better" in verdicts,
        ]
        return (order.index(True) if True in order else len(order)), name

    return sorted(names, key=weight)


def _verdict(metrics: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    """The comparison in a sentence."""
    name = escaped(comparison["reference"])
    if comparison["outcome"] == "none":
        return "Not compared with another model (`evaluation.compare_with`)."
    if comparison["outcome"] == "not_compared":
        return f"Not compared with {name}; the reason is among the notes."
    if comparison["outcome"] == "without_significance":
        return f"Compared with {name} by the figures alone, without a test of significance."
    rows = [
        (metric, row)
        for category in comparison["categories"].values()
        for metric, row in category["metrics"].items()
    ]
    counts = {
        verdict: sum(row["verdict"] == verdict for _, row in rows) for verdict in SIGNS if verdict
    }
    of_mean = comparison["mean"].get("metrics", {})
    mean = [
        f"{METRICS[metric]} {row['verdict']} ({signed(row['difference'])})"
        for metric, row in of_mean.items()
        if metric in COMPARED
    ]
    text = (
        f"Compared with **{name}** on the same images: {counts['better']} figures of categories "
        f"are better, {counts['worse']} worse, {counts['no significant difference']} not "
        "significantly different"
    )
    percent = f"{comparison['confidence']:.0%}"
    over = f"; the mean: {', '.join(mean)}" if mean else ""
    return f"{text}{over}. Confidence {percent}, each figure for itself."


def _leakage(metrics: Mapping[str, Any]) -> str:
    found = []
    for name, row in metrics["categories"].items():
        leak = row.get("leakage") or {}
        count = (leak.get("n_good") or 0) + (leak.get("n_defective") or 0)
        if count:
            without = number((leak.get("without") or {}).get("image_auroc"))
            found.append(
                f"{escaped(name)} {count} (image AUROC {number(row.get('image_auroc'))}, "
                f"without them {without})"
            )
    if found:
        return f"Test images with a near-duplicate outside test: {listed(found)}."
    known = any(row.get("leakage") for row in metrics["categories"].values())
    return "No test image has a near-duplicate outside test." if known else ""


def _notes(comparison: Mapping[str, Any]) -> str:
    notes = [f"- {_prose(note)}" for note in comparison["notes"]]
    if len(notes) > MAX_ITEMS:
        notes = [*notes[:MAX_ITEMS], f"- and {len(notes) - MAX_ITEMS} more, in comparison.json"]
    return "\n".join(["Notes:", "", *notes]) if notes else ""


def _prose(note: str) -> str:
    return " ".join(escaped(word) for word in note.split()[:100])


def _identity(metrics: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    measured_by = {
        "protocol": metrics.get("protocol"),
        "resolution": metrics.get("resolution"),
        **identity,
    }
    items = [f"{key} {escaped(value)}" for key, value in measured_by.items() if value is not None]
    return f"<sub>{' · '.join(items)}</sub>"
