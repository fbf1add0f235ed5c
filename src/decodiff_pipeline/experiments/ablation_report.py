"""Summary, Markdown table and plot of an ablation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from decodiff_pipeline.metrics.summary import METRICS, measured
from decodiff_pipeline.reporting.formatting import markdown_table, number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from decodiff_pipeline.experiments.ablation_config import PlannedVariant

PLOTTED = ("image_auroc", "pixel_ap", "pixel_aupro")
NOTE = (
    "Measured on test images, to study the method: choosing parameters by these metrics would "
    "bias the metrics of the evaluation."
)
WIDTH, BAR, HEADER = 3.4, 0.26, 0.75  # inches


def summarise(
    outcome: Sequence[tuple[PlannedVariant, list[dict[str, Any]]]], seeds: Sequence[int]
) -> dict[str, Any]:
    """Mean, standard deviation over seeds and change from the base, for every variant.

    Args:
        outcome: See :func:`decodiff_pipeline.experiments.ablation.run_ablation`.

    Returns:
        ``seeds``, ``note``, ``base`` (mean metrics) and ``rows``, one per variant: ``study``,
        ``variant``, ``is_base``, ``skipped`` (the reason, or None), ``training`` and ``scoring``
        (the differences), ``metrics`` (each with ``mean``, ``std`` over seeds, ``change``: the mean
        difference from the base at the same seed) and ``categories`` (mean over seeds).
    """
    base, base_results = outcome[0]
    rows = [
        {
            "study": variant.study,
            "variant": variant.variant.name,
            "is_base": variant.jobs == base.jobs,
            "skipped": variant.skipped,
            "training": variant.variant.training,
            "scoring": variant.variant.scoring,
            "metrics": {
                name: _statistics(
                    [result["mean"][name] for result in results],
                    [result["mean"][name] for result in base_results],
                )
                for name in METRICS
            },
            "categories": _by_category(results),
        }
        for variant, results in outcome[1:]
    ]
    mean = {name: _mean([result["mean"][name] for result in base_results]) for name in METRICS}
    return {"note": NOTE, "seeds": list(seeds), "base": mean, "rows": rows}


def render_table(ablation: Mapping[str, Any]) -> str:
    """Markdown with a table of variants per study; the change from the base is in brackets."""
    shown = measured({"mean": ablation["base"]})
    categories = sorted({name for row in ablation["rows"] for name in row["categories"]})
    several = len(ablation["seeds"]) > 1
    base = ", ".join(f"{METRICS[name]} {number(ablation['base'][name])}" for name in shown)
    blocks = ["# Ablation", ablation["note"], _legend(ablation["seeds"]), f"Base: {base}."]
    for study, rows in _studies(ablation).items():
        blocks.append(f"## {study}")
        done = [row for row in rows if not row["skipped"]]
        if done:
            blocks.append(_means(done, shown, several=several))
        if done and len(categories) > 1:
            blocks.append(_each_category(done, shown, categories))
        skipped = [row for row in rows if row["skipped"]]
        blocks += [f"{row['variant']}: skipped, {row['skipped']}." for row in skipped]
    return "\n\n".join(blocks) + "\n"


def draw(ablation: Mapping[str, Any]) -> Figure:
    """A row of panels per study with mean, standard deviation and categories of each variant."""
    from matplotlib.figure import Figure

    metrics = [name for name in PLOTTED if ablation["base"].get(name) is not None]
    studies = {
        study: [row for row in rows if not row["skipped"]]
        for study, rows in _studies(ablation).items()
    }
    studies = {study: rows for study, rows in studies.items() if rows}
    heights = [BAR * len(rows) + HEADER for rows in studies.values()]
    figure = Figure(figsize=(1.8 + WIDTH * len(metrics), max(1.5, sum(heights))))
    figure.set_layout_engine("constrained")
    panels = figure.subplots(
        max(1, len(studies)), len(metrics), squeeze=False, sharex="col", sharey="row",
        gridspec_kw={"height_ratios": heights or [1]},
    )  # fmt: skip
    for line, (study, rows) in zip(panels, studies.items(), strict=False):
        for axis, metric in zip(line, metrics, strict=True):
            _panel(axis, rows, metric, ablation["base"][metric])
            axis.set_title(f"{study}: {METRICS[metric]}", fontsize=9, loc="left")
        line[0].set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=8)
    return figure


def _panel(axis: Any, rows: Sequence[Mapping[str, Any]], metric: str, base: float) -> None:
    axis.axvline(base, color="0.6", linewidth=1, linestyle="--")
    for y, row in enumerate(rows):
        values = [category.get(metric) for category in row["categories"].values()]
        values = [value for value in values if value is not None]
        axis.plot(values, [y] * len(values), "|", color="0.6", markersize=7)
        statistics = row["metrics"][metric]
        if statistics["mean"] is not None:
            axis.errorbar(statistics["mean"], y, xerr=statistics["std"], fmt="o", color="#2b7bba",
                          markersize=5, capsize=2)  # fmt: skip
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.tick_params(labelsize=8, labelbottom=True)
    axis.grid(axis="x", color="0.9")
    axis.spines[["top", "right"]].set_visible(False)


def _statistics(values: list[float | None], base: list[float | None]) -> dict[str, float | None]:
    pairs = [(v, b) for v, b in zip(values, base, strict=False) if v is not None and b is not None]
    if not pairs:
        return {"mean": None, "std": None, "change": None}
    variant, reference = np.array(pairs).T
    return {
        "mean": float(variant.mean()),
        "std": float(variant.std(ddof=1)) if len(variant) > 1 else None,
        "change": float((variant - reference).mean()),
    }


def _by_category(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    names = results[0]["categories"] if results else {}
    return {
        category: {
            metric: _mean([result["categories"][category][metric] for result in results])
            for metric in METRICS
        }
        for category in names
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _studies(ablation: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    studies: dict[str, list[dict[str, Any]]] = {}
    for row in ablation["rows"]:
        studies.setdefault(row["study"], []).append(row)
    return studies


def _legend(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"Mean over categories, one seed ({seeds[0]}); in brackets the change from the base."
    return (
        f"Mean over categories ± standard deviation over {len(seeds)} seeds; in brackets the mean "
        "change from the base at the same seed."
    )


def _label(row: Mapping[str, Any]) -> str:
    return f"{row['variant']} (base)" if row["is_base"] else str(row["variant"])


def _table(rows: Sequence[Sequence[str]]) -> str:
    return markdown_table([[cell.replace("|", "\\|") for cell in row] for row in rows])


def _means(rows: Sequence[Mapping[str, Any]], shown: Sequence[str], *, several: bool) -> str:
    head = ["variant", *(METRICS[name] for name in shown)]
    return _table([head, *([_label(row), *_cells(row, shown, several)] for row in rows)])


def _each_category(
    rows: Sequence[Mapping[str, Any]], shown: Sequence[str], categories: Sequence[str]
) -> str:
    pairs = [(c, name) for c in categories for name in PLOTTED[:2] if name in shown]
    lines = [["variant", *(f"{category} {METRICS[name]}" for category, name in pairs)]]
    for row in rows:
        values = row["categories"]
        lines.append([_label(row), *(number(values.get(c, {}).get(name)) for c, name in pairs)])
    return _table(lines)


def _cells(row: Mapping[str, Any], shown: Sequence[str], several: bool) -> list[str]:
    cells = []
    for name in shown:
        statistics = row["metrics"][name]
        text = number(statistics["mean"])
        if several and statistics["std"] is not None:
            text += f" ± {statistics['std']:.3f}"
        if statistics["change"] is not None and not row["is_base"]:
            text += f" ({statistics['change']:+.3f})"
        cells.append(text)
    return cells
