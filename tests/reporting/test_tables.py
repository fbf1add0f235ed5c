"""Flat tables, and the rows for `dvc plots`."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from decodiff_pipeline.reporting.tables import (
    confusion_rows,
    curve_rows,
    metrics_table,
    score_rows,
    scores_table,
)


@pytest.fixture
def record() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "category": ["plate"] * 4 + ["bolt"] * 2 + ["plate"],
            "path": [f"{i}.png" for i in range(7)],
            "split": ["test"] * 6 + ["calibration"],
            "label": ["good", "good", "defective", "uncertain", "good", "defective", "good"],
            "score": np.array([0.1, 0.6, 0.7, 0.9, 0.2, 0.2, 0.3], np.float32),
        }
    )


THRESHOLDS = {"categories": {"plate": {"threshold": 0.5}, "bolt": {"threshold": None}}}


def test_curves_become_rows_of_the_categories_that_have_them() -> None:
    curves = {
        "plate": {"image_roc": {"fpr": [0, 1 / 3, 1], "tpr": [0, 1, 1]}},
        "bolt": {"image_roc": None},
        "nut": {},
    }
    assert curve_rows(curves, "image_roc") == [
        {"category": "plate", "fpr": 0.0, "tpr": 0.0},
        {"category": "plate", "fpr": 0.33333, "tpr": 1.0},
        {"category": "plate", "fpr": 1.0, "tpr": 1.0},
    ]
    assert curve_rows(curves, "pro") == [{"category": None, "fpr": None, "overlap": None}]


def test_score_histograms_add_up_for_each_label(record: pd.DataFrame) -> None:
    rows = pd.DataFrame(score_rows(record))
    totals = rows.groupby(["category", "label"])["share"].sum()
    assert totals.to_dict() == {
        ("bolt", "defective"): 1, ("bolt", "good"): 1,
        ("plate", "defective"): 1, ("plate", "good"): 1,
    }  # fmt: skip
    json.dumps(score_rows(record), allow_nan=False)


def test_decisions_are_counted_where_there_is_a_threshold(record: pd.DataFrame) -> None:
    assert confusion_rows(record, THRESHOLDS) == [
        {"category": "plate", "actual": "good", "predicted": "good"},
        {"category": "plate", "actual": "good", "predicted": "defective"},
        {"category": "plate", "actual": "defective", "predicted": "defective"},
    ]


def test_the_table_of_images_has_the_most_anomalous_first(record: pd.DataFrame) -> None:
    table = scores_table(record, THRESHOLDS)
    assert table["path"].tolist() == ["4.png", "5.png", "2.png", "1.png", "0.png"]
    plate = table[table["category"] == "plate"]
    assert plate["wrong"].tolist() == [False, True, False]
    assert table["wrong"][table["category"] == "bolt"].isna().all()


def test_the_table_of_metrics_has_intervals_and_baselines() -> None:
    row = {
        "image_auroc": 0.9,
        "pixel_ap": None,
        "n_good": 3,
        "intervals": {"image_auroc": [0.8, 0.95], "pixel_ap": None},
    }
    baselines = {"pca": {"plate": {"image_auroc": 0.7}}}
    table = metrics_table(
        {
            "categories": {"plate": row},
            "mean": {"image_auroc": 0.9, "intervals": {}},
            "baseline": baselines,
        }
    )
    assert table.iloc[0].to_dict() == {
        "category": "plate",
        "image_auroc": 0.9,
        "image_auroc_low": 0.8,
        "image_auroc_high": 0.95,
        "image_auroc_pca": 0.7,
        "n_good": 3,
    }
    assert table["category"].tolist() == ["plate", "mean"]
