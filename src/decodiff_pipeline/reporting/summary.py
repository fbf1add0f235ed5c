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
from decodiff_pipeline.reporting.formatting import number, signed, text_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROSE = {"image_auroc": "image AUROC", "pixel_ap": "pixel AP"}


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


def verdict(metrics: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    """The figures against the PCA baseline, and against the model that it was compared with.

    Args:
        metrics: The content of ``metrics.json``.
        comparison: The content of ``comparison.json``, or nothing.
    """
    mean, names = metrics.get("mean") or {}, metrics["categories"]
    shown = [name for name in COMPARED if name in measured(metrics)]
    figures = " and ".join(f"{PROSE[name]} {number(mean.get(name))}" for name in shown)
    over = f", mean of {len(names)} categories" if len(names) > 1 else ""
    return f"{figures[:1].upper()}{figures[1:]}{over}{_beside_pca(metrics)}.{_change(comparison)}"


def _beside_pca(metrics: Mapping[str, Any]) -> str:
    baseline = (metrics.get("baseline") or {}).get("pca") or {}
    found = [
        [beats(row.get(name), (baseline.get(category) or {}).get(name)) for name in COMPARED]
        for category, row in metrics["categories"].items()
    ]
    known = [row for row in found if any(one is not None for one in row)]
    above = sum(False not in row for row in known)
    if not known:
        return ""
    if len(known) == 1:
        return f", {'above' if above else 'not above'} the PCA baseline"
    return f"; {above} of {len(known)} categories are above the PCA baseline"


def _change(comparison: Mapping[str, Any]) -> str:
    changes = (comparison.get("mean") or {}).get("metrics") or {}
    told = [
        f"{METRICS[name]} {changes[name]['verdict']} ({signed(changes[name]['difference'])})"
        for name in COMPARED
        if (changes.get(name) or {}).get("verdict")
    ]
    return f" Against {comparison['reference']}: {', '.join(told)}." if told else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
