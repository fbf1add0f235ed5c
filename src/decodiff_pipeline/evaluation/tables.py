"""Flat tables of the results, for MLflow and for spreadsheets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from decodiff_pipeline.evaluation.plots import with_decisions
from decodiff_pipeline.evaluation.summary import METRICS, mean_over_categories

if TYPE_CHECKING:
    from collections.abc import Mapping

FIGURES = (
    "n_good",
    "n_defective",
    "n_masks",
    "threshold",
    "promised_false_positive_rate",
    "false_positive_rate",
    "false_negative_rate",
)
IMAGE_COLUMNS = ("category", "path", "label", "defect_type", "score", "near_duplicate")


def metrics_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each category and one for the mean.

    Args:
        metrics: As in ``metrics.json``.

    Returns:
        ``category``; each metric that was measured, its interval's ends (``…_low``, ``…_high``)
        and the baselines' figures (``…_pca``); how many images there are and what the threshold
        does. Empty cells where there is nothing.
    """
    baselines = {
        name: {**found, "mean": mean_over_categories(found)}
        for name in ("pca", "autoencoder")
        if (found := _baseline(metrics, name))
    }
    rows = []
    for category, row in [*metrics["categories"].items(), ("mean", metrics.get("mean", {}))]:
        cells: dict[str, Any] = {"category": category}
        for metric in METRICS:
            low, high = (row.get("intervals") or {}).get(metric) or (None, None)
            cells |= {metric: row.get(metric), f"{metric}_low": low, f"{metric}_high": high}
            cells |= {
                f"{metric}_{name}": found.get(category, {}).get(metric)
                for name, found in baselines.items()
            }
        rows.append(cells | {name: row.get(name) for name in FIGURES})
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def scores_table(record: pd.DataFrame, thresholds: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each good or defective test image, the most anomalous first in its category.

    Args:
        record: The ``evaluation_record``.
        thresholds: As in ``thresholds.json``.

    Returns:
        Category, path, label, type of defect, score, threshold, what the threshold makes of the
        image (``predicted``) and whether that is ``wrong``.
    """
    images = with_decisions(record, thresholds)
    wrong = (images["predicted"] != images["label"]).where(images["predicted"].notna())
    columns = [name for name in IMAGE_COLUMNS if name in images]
    table = images.assign(wrong=wrong)[[*columns, "threshold", "predicted", "wrong"]]
    return table.sort_values(["category", "score"], ascending=[True, False]).reset_index(drop=True)


def _baseline(metrics: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return metrics.get("baseline", {}).get(name) or {}
