"""Tables of the results for MLflow and spreadsheets, and the rows that `dvc plots` draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from decodiff_pipeline.evaluation.category_evaluator import CERTAIN
from decodiff_pipeline.evaluation.record import certain
from decodiff_pipeline.metrics.summary import MEAN, METRICS, baselines_with_mean

if TYPE_CHECKING:
    from collections.abc import Mapping


# Curve in curves.json → x and y columns.
CURVES = {
    "image_roc": ("fpr", "tpr"),
    "image_pr": ("recall", "precision"),
    "pixel_roc": ("fpr", "tpr"),
    "pixel_pr": ("recall", "precision"),
    "pro": ("fpr", "overlap"),
}
SCORE_BINS = 40
DIGITS = 5  # a third of the file size, with no visible difference
Rows = list[dict[str, Any]]

FIGURES = (
    "n_good",
    "n_defective",
    "n_masks",
    "threshold",
    "promised_false_positive_rate",
    "false_positive_rate",
    "false_negative_rate",
)
KEY_FIGURES = ("image_auroc", "pixel_ap", "false_positive_rate", "false_negative_rate")
IMAGE_COLUMNS = ("category", "path", "label", "defect_type", "score", "near_duplicate")


def metrics_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each category and one for the mean.

    Returns:
        ``category``; each measured metric with its confidence interval (``…_low``, ``…_high``)
        and the baselines (``…_pca``, ``…_autoencoder``); the columns of `FIGURES`. Cells without
        a value are empty.
    """
    baselines = baselines_with_mean(metrics)
    rows = []
    for category, row in {**metrics["categories"], MEAN: metrics["mean"]}.items():
        cells: dict[str, Any] = {"category": category}
        for metric in METRICS:
            low, high = row["intervals"].get(metric) or (None, None)
            cells |= {metric: row.get(metric), f"{metric}_low": low, f"{metric}_high": high}
            cells |= {
                f"{metric}_{name}": values.get(category, {}).get(metric)
                for name, values in baselines.items()
            }
        rows.append(cells | {name: row.get(name) for name in FIGURES})
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def key_figures(metrics: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The measured `KEY_FIGURES` of each category and of the mean."""
    rows = {MEAN: metrics["mean"], **metrics["categories"]}
    return {
        name: {key: row[key] for key in KEY_FIGURES if row.get(key) is not None}
        for name, row in rows.items()
    }


def scores_table(record: pd.DataFrame, thresholds: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each good or defective test image, by category and descending score.

    Returns:
        `IMAGE_COLUMNS`, ``threshold``, the decision (``predicted``) and whether it is ``wrong``.
    """
    images = with_decisions(record, thresholds)
    wrong = (images["predicted"] != images["label"]).where(images["predicted"].notna())
    columns = [name for name in IMAGE_COLUMNS if name in images]
    table = images.assign(wrong=wrong)[[*columns, "threshold", "predicted", "wrong"]]
    return table.sort_values(["category", "score"], ascending=[True, False]).reset_index(drop=True)


def curve_rows(curves: Mapping[str, Mapping[str, Any]], name: str) -> Rows:
    """The points of one curve of all categories.

    Args:
        name: A key of `CURVES`.

    Returns:
        Rows with ``category`` and the curve's two columns.
    """
    x, y = CURVES[name]
    rows = [
        {"category": category, x: round(float(a), DIGITS), y: round(float(b), DIGITS)}
        for category, category_curves in sorted(curves.items())
        if (curve := category_curves.get(name))
        for a, b in zip(curve[x], curve[y], strict=True)
    ]
    return _not_empty(rows, "category", x, y)


def score_rows(record: pd.DataFrame) -> Rows:
    """Histograms of the image scores of the test images.

    Returns:
        Rows with ``category``, ``label``, ``score`` (centre of one of `SCORE_BINS` bins over the
        scores of the category) and ``share`` (of the label's images in the bin, 0…1).
    """
    rows: Rows = []
    for category, images in certain(record).groupby("category", sort=True):
        scores = images["score"].to_numpy(np.float64)
        edges = np.histogram_bin_edges(scores, SCORE_BINS)
        centres = (edges[1:] + edges[:-1]) / 2
        for label in CERTAIN:
            label_scores = scores[(images["label"] == label).to_numpy()]
            if not len(label_scores):
                continue
            shares = np.histogram(label_scores, edges)[0] / len(label_scores)
            rows += [
                {
                    "category": str(category),
                    "label": label,
                    "score": float(f"{centre:.{DIGITS}g}"),
                    "share": round(float(share), DIGITS),
                }
                for centre, share in zip(centres, shares, strict=True)
            ]
    return _not_empty(rows, "category", "label", "score", "share")


def confusion_rows(record: pd.DataFrame, thresholds: Mapping[str, Any]) -> Rows:
    """A row for each test image of a category that has a threshold.

    Returns:
        Rows with ``category``, ``actual`` and ``predicted``, both ``good`` or ``defective``.
    """
    images = with_decisions(record, thresholds)
    decided = images[images["predicted"].notna()]
    rows = [
        {"category": str(row.category), "actual": row.label, "predicted": row.predicted}
        for row in decided.itertuples()
    ]
    return _not_empty(rows, "category", "actual", "predicted")


def with_decisions(record: pd.DataFrame, thresholds: Mapping[str, Any]) -> pd.DataFrame:
    """Good and defective test images with the columns ``threshold`` and ``predicted``.

    Both columns are empty for a category without a threshold.
    """
    images = certain(record)
    limits = {
        name: entry["threshold"]
        for name, entry in thresholds["categories"].items()
        if entry.get("threshold") is not None
    }
    limit = images["category"].map(limits).astype(np.float64)
    flagged = np.where(images["score"].astype(np.float64) >= limit, "defective", "good")
    predicted = images["category"].mask(limit.notna(), flagged).where(limit.notna())
    return images.assign(threshold=limit, predicted=predicted)


def _not_empty(rows: Rows, *columns: str) -> Rows:
    """The rows, or one row of nulls, because `dvc plots` warns about an empty file."""
    return rows or [dict.fromkeys(columns)]
