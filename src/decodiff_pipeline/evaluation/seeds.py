"""How much results depend on the training's seed."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.evaluation.summary import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping

MEAN = "mean"

Spread = dict[str, float | int]


def spread(
    siblings: Mapping[int, Mapping[str, Any]], metrics: Mapping[str, Any], seed: int
) -> dict[str, dict[str, Spread]]:
    """Metrics over runs that differ by their seeds alone.

    Args:
        siblings: The ``metrics.json`` of other runs, by seed.
        metrics: That of this run, which stands for its own seed.
        seed: This run's.

    Returns:
        For each category of this run, and for ``mean`` (the mean over categories), each metric
        that at least two runs have: ``n`` seeds, their ``mean``, ``std`` (n - 1 in the
        denominator), ``low`` and ``high`` (the least and the largest). Empty where there is one
        run alone, and a run with other categories does not count.
    """
    names = set(metrics["categories"])
    runs = {**siblings, seed: metrics}
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
