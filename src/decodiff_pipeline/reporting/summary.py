"""The evaluation results as a table for the terminal.

python -m decodiff_pipeline.reporting.summary data/08_reporting/elpv/metrics.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.errors import DataError, DecodiffError
from decodiff_pipeline.metrics.summary import (
    COMPARED,
    MEAN,
    METRICS,
    baselines_with_mean,
    beats,
    measured,
)
from decodiff_pipeline.reporting.formatting import number, signed, text_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAMES = {"image_auroc": "image AUROC", "pixel_ap": "pixel AP"}  # in a sentence


def render_table(metrics: Mapping[str, Any]) -> str:
    """The content of ``metrics.json`` as a text table of at most 100 columns.

    Args:
        metrics: See `assessment.assess`.

    Returns:
        The protocol, and a line for each category and the mean. The PCA baseline follows the
        metrics in which it is compared; ``*`` marks a category that does not beat it.
    """
    baseline = baselines_with_mean(metrics).get("pca", {})
    columns = measured(metrics)
    header = ["category", "good", "bad"]
    for name in columns:
        header += [METRICS[name], "(PCA)"] if name in COMPARED else [METRICS[name]]
    rows = {**metrics.get("categories", {}), MEAN: metrics.get("mean", {})}
    lines = [_line(name, row, baseline.get(name, {}), columns) for name, row in rows.items()]
    text = text_table([header, *lines])
    if "protocol" in metrics:
        native = ", native resolution" if metrics.get("resolution") == "native" else ""
        text = f"protocol {metrics['protocol']}{native}\n{text}"
    if any("*" in cell for line in lines for cell in line):
        text += "\n* does not beat the PCA baseline"
    return text


def _line(
    name: str, row: Mapping[str, Any], baseline: Mapping[str, Any], columns: Sequence[str]
) -> list[str]:
    cells = [name, str(row.get("n_good", "")), str(row.get("n_defective", ""))]
    for metric in columns:
        value = number(row.get(metric))
        if metric in COMPARED:
            unbeaten = beats(row.get(metric), baseline.get(metric)) is False
            cells += [f"{value}{'*' if unbeaten else ' '}", f"{number(baseline.get(metric))} "]
        else:
            cells.append(value)
    return cells


def main(arguments: Sequence[str]) -> int:
    """Print the table of a ``metrics.json``; returns the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m decodiff_pipeline.reporting.summary METRICS.JSON\n")
        return 2
    path = Path(arguments[0])
    try:
        sys.stdout.write(render_table(_read(path)) + "\n")
    except DecodiffError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _read(path: Path) -> dict[str, Any]:
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read {path} ({error}); run {kedro_run('evaluation')} to make it"
        ) from error
    if not isinstance(metrics, dict):
        raise DataError(f"{path} contains no metrics; run {kedro_run('evaluation')} to make it")
    return metrics


def verdict(metrics: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    """Mean metrics, and their comparison with the PCA baseline and a reference model.

    Args:
        metrics: Content of ``metrics.json``.
        comparison: Content of ``comparison.json``; may be empty.
    """
    mean, categories = metrics.get("mean") or {}, metrics["categories"]
    available = [name for name in COMPARED if name in measured(metrics)]
    values = " and ".join(f"{NAMES[name]} {number(mean.get(name))}" for name in available)
    values = f"{values[:1].upper()}{values[1:]}"
    over = f", mean of {len(categories)} categories" if len(categories) > 1 else ""
    changes = ", ".join(changes_of_mean(comparison))
    against = f" Against {comparison['reference']}: {changes}." if changes else ""
    return f"{values}{over}{_against_pca(metrics)}.{against}"


def _against_pca(metrics: Mapping[str, Any]) -> str:
    baseline = baselines_with_mean(metrics).get("pca", {})
    outcomes = [
        [beats(row.get(name), baseline.get(category, {}).get(name)) for name in COMPARED]
        for category, row in metrics["categories"].items()
    ]
    compared = [row for row in outcomes if any(beaten is not None for beaten in row)]
    above = sum(False not in row for row in compared)
    if not compared:
        return ""
    if len(compared) == 1:
        return f", {'above' if above else 'not above'} the PCA baseline"
    return f"; {above} of {len(compared)} categories are above the PCA baseline"


def changes_of_mean(comparison: Mapping[str, Any]) -> list[str]:
    """Verdict and difference of each compared metric that was tested."""
    metrics = comparison.get("mean", {}).get("metrics", {})
    return [
        f"{METRICS[name]} {metrics[name]['verdict']} ({signed(metrics[name]['difference'])})"
        for name in COMPARED
        if name in metrics and metrics[name]["verdict"]
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
