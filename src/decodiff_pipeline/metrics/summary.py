"""Summaries of metrics over categories, and over runs with different seeds."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

METRICS = {
    "image_auroc": "I-AUROC",
    "image_ap": "I-AP",
    "image_f1max": "I-F1max",
    "pixel_auroc": "P-AUROC",
    "pixel_ap": "P-AP",
    "pixel_f1max": "P-F1max",
    "pixel_aupro": "AUPRO",
    "pixel_aupro_5": "AUPRO 5 %",
}
COMPARED = ("image_auroc", "pixel_ap")  # compared with the baseline
BASELINES = ("pca", "autoencoder")
MEAN = "mean"

Spread = dict[str, float | int]


def mean_over_categories(categories: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Mean of each metric over the categories that have it.

    Returns:
        The mean of each metric, ``None`` if no category has it, and ``n_categories``: the number
        of categories that have each metric.
    """
    mean: dict[str, Any] = {}
    counts = {}
    for metric in METRICS:
        values = [row[metric] for row in categories.values() if row.get(metric) is not None]
        mean[metric] = sum(values) / len(values) if values else None
        counts[metric] = len(values)
    return mean | {"n_categories": counts}


def baselines_with_mean(metrics: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """The measured baselines of a ``metrics.json``: name → category, or ``mean`` → metrics."""
    measured = {name: metrics.get("baseline", {}).get(name) for name in BASELINES}
    return {
        name: {**rows, MEAN: mean_over_categories(rows)} for name, rows in measured.items() if rows
    }


def beats(ours: float | None, baseline: float | None) -> bool | None:
    """Whether a metric is greater than the baseline's; ``None`` if one is missing."""
    return None if ours is None or baseline is None else ours > baseline


def measured(metrics: Mapping[str, Any]) -> list[str]:
    """The metrics that at least one category has, and image AUROC in any case."""
    mean = metrics.get("mean", {})
    return [name for name in METRICS if name == "image_auroc" or mean.get(name) is not None]


def spread(
    replicates: Mapping[int, Mapping[str, Any]], metrics: Mapping[str, Any], seed: int
) -> dict[str, dict[str, Spread]]:
    """Statistics of metrics over runs that differ only in their seeds.

    Args:
        replicates: The ``metrics.json`` of other runs, by seed. Runs with other categories are
            ignored.
        metrics: The ``metrics.json`` of this run.
        seed: The seed of this run.

    Returns:
        For each category, and for ``mean`` (the mean over categories), each metric that at least
        two runs have: ``n`` seeds, ``mean``, ``std`` (denominator n - 1), ``low`` and ``high``
        (minimum and maximum). Empty for a single run.
    """
    names = set(metrics["categories"])
    runs = {**replicates, seed: metrics}
    rows = [
        {**run["categories"], MEAN: run.get("mean", {})}
        for _, run in sorted(runs.items())
        if set(run.get("categories", {})) == names
    ]
    spreads = {name: _category_spread([row[name] for row in rows]) for name in (*names, MEAN)}
    return {name: metrics for name, metrics in sorted(spreads.items()) if metrics}


def _category_spread(rows: list[Mapping[str, Any]]) -> dict[str, Spread]:
    spreads: dict[str, Spread] = {}
    for metric in METRICS:
        values = [float(row[metric]) for row in rows if row.get(metric) is not None]
        if len(values) > 1:
            spreads[metric] = {
                "n": len(values),
                "mean": statistics.fmean(values),
                "std": statistics.stdev(values),
                "low": min(values),
                "high": max(values),
            }
    return spreads
