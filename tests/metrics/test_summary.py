"""The mean over categories, and the spread over seeds."""

from __future__ import annotations

from typing import Any

import pytest

from decodiff_pipeline.metrics.summary import mean_over_categories, spread


def run(auroc: float) -> dict[str, Any]:
    categories = {"plate": {"image_auroc": auroc, "pixel_ap": None}}
    return {"categories": categories, "mean": {"image_auroc": auroc}}


def test_the_spread_counts_each_seed_once_and_this_run_for_its_own() -> None:
    found = spread({0: run(0.1), 1: run(0.8), 2: run(0.9)}, run(0.7), seed=0)
    expected = {"n": 3, "mean": 0.8, "std": 0.1, "low": 0.7, "high": 0.9}
    assert found["plate"]["image_auroc"] == pytest.approx(expected)
    assert found["mean"]["image_auroc"] == pytest.approx(expected)
    assert "pixel_ap" not in found["plate"]


@pytest.mark.parametrize(
    "others", [{}, {0: run(0.8)}, {1: {"categories": {"bolt": {"image_auroc": 1.0}}}}]
)
def test_one_run_has_no_spread(others: dict[int, Any]) -> None:
    assert spread(others, run(0.7), seed=0) == {}


def test_the_mean_is_over_categories_that_have_the_metric() -> None:
    rows = {"image_auroc": 0.5, "pixel_ap": None}, {"image_auroc": 1.0, "pixel_ap": 0.2}, {}
    mean = mean_over_categories(dict(zip("abc", rows, strict=True)))
    assert mean["image_auroc"] == pytest.approx(0.75)
    assert mean["pixel_ap"] == pytest.approx(0.2)
    assert mean["pixel_aupro"] is None
    assert mean["n_categories"]["image_auroc"] == 2
