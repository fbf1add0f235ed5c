"""Metrics of several categories, and of runs that differ by their seed, put together."""

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
COMPARED = ("image_auroc", "pixel_ap")  # with the baseline
MEAN = "mean"

Spread = dict[str, float | int]


def mean_over_categories(categories: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Mean of each metric over the categories that have it.

    Returns:
        The metrics' keys, ``None`` where no category has the metric, and ``n_categories``: for
        each metric, over how many the mean is.
    """
    mean: dict[str, Any] = {}
    counts = {}
    for metric in METRICS:
        values = [row[metric] for row in categories.values() if row.get(metric) is not None]
        mean[metric] = sum(values) / len(values) if values else None
        counts[metric] = len(values)
    return mean | {"n_categories": counts}


def beats(ours: float | None, baseline: float | None) -> bool | None:
    """Whether a metric is above the baseline's; equal is not; ``None`` where one is missing."""
    return None if ours is None or baseline is None else ours > baseline


def measured(metrics: Mapping[str, Any]) -> list[str]:
    """Metrics that at least one category has, and image AUROC in any case."""
    mean = metrics.get("mean", {})
    return [name for name in METRICS if name == "image_auroc" or mean.get(name) is not None]


def spread(
    replicates: Mapping[int, Mapping[str, Any]], metrics: Mapping[str, Any], seed: int
) -> dict[str, dict[str, Spread]]:
    """Metrics over runs that differ by their seeds alone.

    Args:
        replicates: The ``metrics.json`` of other runs, by seed.
        metrics: That of this run, which stands for its own seed.

    Returns:
        For each category of this run, and for ``mean`` (the mean over categories), each metric
        that at least two runs have: ``n`` seeds, their ``mean``, ``std`` (n - 1 in the
        denominator), ``low`` and ``high`` (the least and the largest). Empty where there is one
        run alone, and a run with other categories does not count.
    """
    names = set(metrics["categories"])
    runs = {**replicates, seed: metrics}
    rows = [
        {**run["categories"], MEAN: run.get("mean", {})}
        for _, run in sorted(runs.items())
        if set(run.get("categories", {})) == names
    ]
    spreads = {name: _of_category([row[name] for row in rows]) for name in (*names, MEAN)}
    return {name: found for name, found in sorted(spreads.items()) if found}


def _of_category(rows: list[Mapping[str, Any]]) -> dict[str, Spread]:
    found: dict[str, Spread] = {}
    for metric in METRICS:
        values = [float(row[metric]) for row in rows if row.get(metric) is not None]
        if len(values) > 1:
            found[metric] = {
                "n": len(values),
                "mean": statistics.fmean(values),
                "std": statistics.stdev(values),
                "low": min(values),
                "high": max(values),
            }
    return found
