"""The results as a table for the terminal.

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
    METRICS,
    beats,
    mean_over_categories,
    measured,
)
from decodiff_pipeline.reporting.formatting import number, text_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def render_table(metrics: Mapping[str, Any]) -> str:
    """The table of a ``metrics.json`` as plain text, 100 columns wide at most.

    Args:
        metrics: As `assessment.assess` returns them.

    Returns:
        The protocol, a line per category and the mean, the PCA baseline beside the two metrics it
        is compared in; ``*`` marks a category that does not beat it.
    """
    baselines = metrics.get("baseline", {}).get("pca", {})
    shown = measured(metrics)
    header = ["category", "good", "bad"]
    for name in shown:
        header += [METRICS[name], "(PCA)"] if name in COMPARED else [METRICS[name]]
    lines = [
        _line(name, row, baselines.get(name, {}), shown)
        for name, row in metrics.get("categories", {}).items()
    ]
    lines.append(_line("mean", metrics.get("mean", {}), mean_over_categories(baselines), shown))
    text = text_table([header, *lines])
    if "protocol" in metrics:
        native = ", native resolution" if metrics.get("resolution") == "native" else ""
        text = f"protocol {metrics['protocol']}{native}\n{text}"
    if any("*" in cell for line in lines for cell in line):
        text += "\n* does not beat the PCA baseline"
    return text


def _line(
    name: str, row: Mapping[str, Any], baseline: Mapping[str, Any], shown: Sequence[str]
) -> list[str]:
    cells = [name, str(row.get("n_good", "")), str(row.get("n_defective", ""))]
    for metric in shown:
        value = number(row.get(metric))
        if metric in COMPARED:
            missed = beats(row.get(metric), baseline.get(metric)) is False
            cells += [f"{value}{'*' if missed else ' '}", f"{number(baseline.get(metric))} "]
        else:
            cells.append(value)
    return cells


def main(arguments: Sequence[str]) -> int:
    """Print the table of a file.

    Returns:
        The exit status.
    """
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
        raise DataError(f"{path} holds no metrics; run {kedro_run('evaluation')} to make it")
    return metrics


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
