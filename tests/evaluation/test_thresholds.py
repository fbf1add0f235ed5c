"""The promise of the thresholds, and where it cannot be kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from decodiff_pipeline.evaluation.config import CostConfig
from decodiff_pipeline.evaluation.thresholds import conformal_threshold, fit_thresholds
from decodiff_pipeline.metrics.thresholds import cheapest_threshold

if TYPE_CHECKING:
    from tests.evaluation.conftest import World


@pytest.mark.parametrize(
    ("n", "alpha", "flagged", "promised"),
    [(19, 0.05, 0, 0.05), (39, 0.05, 1, 0.05), (99, 0.1, 9, 0.1), (9, 0.05, 0, 0.1)],
)
def test_the_promise_is_what_was_asked_or_the_best_of_few_images(
    n: int, alpha: float, flagged: int, promised: float
) -> None:
    scores = np.random.default_rng(0).permutation(n).astype(np.float32)
    found = conformal_threshold(scores, alpha)
    assert (scores >= found["threshold"]).sum() == flagged
    assert found["promised_false_positive_rate"] == pytest.approx(promised)
    assert found["sufficient"] == (promised == alpha)


def test_the_promise_holds_on_average_for_new_images() -> None:
    rng = np.random.default_rng(1)
    rates = []
    for _ in range(400):
        threshold = conformal_threshold(rng.gamma(2, size=25).astype(np.float32), 0.1)["threshold"]
        rates.append((rng.gamma(2, size=500).astype(np.float32) >= threshold).mean())
    # 3 of 26 would break it, 2 of 26 is what k = 24 gives.
    assert np.mean(rates) == pytest.approx(2 / 26, abs=0.01)


def test_scores_clipped_at_one_value_are_not_all_flagged() -> None:
    found = conformal_threshold(np.ones(30, np.float32), 0.05)
    assert np.float32(found["threshold"]) == np.nextafter(np.float32(1), np.float32(2))


def test_only_calibration_images_count(plate: World) -> None:
    store = plate.scored()
    found = fit_thresholds(store, 0.2)
    index = store.index()
    calibration = index[index["split"] == "calibration"]
    entry = found["categories"]["plate"]
    assert found["false_positive_rate"] == 0.2
    assert entry["n_calibration"] == 5
    assert (calibration["score"] >= entry["threshold"]).sum() == 0
    # k = 5 of 5: just above the largest.
    assert entry["threshold"] == pytest.approx(calibration["score"].max(), abs=1e-6)
    # The stand-in's score is the maximum of its map, so both thresholds are one.
    assert entry["pixel_threshold"] == entry["threshold"]


def test_costs_move_the_threshold_between_good_and_defective() -> None:
    good = np.array([0.1, 0.2, 0.3, 0.6], np.float32)
    defective = np.array([0.4, 0.5, 0.7, 0.8], np.float32)
    dear_misses = cheapest_threshold(good, defective, 10, 1, 0.5)
    assert dear_misses["threshold"] == pytest.approx(0.35)
    assert dear_misses["expected_cost"] == pytest.approx(0.5 * 1 / 4)
    dear_alarms = cheapest_threshold(good, defective, 1, 10, 0.5)
    assert dear_alarms["threshold"] == pytest.approx(0.65)
    assert dear_alarms["expected_cost"] == pytest.approx(0.5 * 2 / 4)
    assert dear_alarms["promised_false_positive_rate"] == pytest.approx(1 / 5)
    overlapping = cheapest_threshold(defective, good, 1, 1, 1e-3)
    assert overlapping["threshold"] > 0.8  # nothing is flagged where next to nothing is defective


def test_thresholds_by_costs_are_marked_as_fitted_on_labels(plate: World) -> None:
    store = plate.scored()
    costs = CostConfig(miss=100, false_alarm=1, defective_share=0.5)
    entry = fit_thresholds(store, 0.2, costs)["categories"]["plate"]
    index = store.index()
    defective = index[(index["split"] == "test") & (index["label"] == "defective")]["score"]
    assert (defective >= entry["threshold"]).all()
    assert (entry["fitted_on"], entry["n_defective"]) == ("labels", len(defective))
    assert entry["costs"]["miss"] == 100
    by_rate = fit_thresholds(store, 0.2)["categories"]["plate"]
    assert "fitted_on" not in by_rate
    assert entry["pixel_threshold"] == by_rate["pixel_threshold"]


def test_costs_need_defective_images(world: World) -> None:
    world.add("plate", "calibration", "good", 5)
    costs = CostConfig(miss=100, false_alarm=1, defective_share=0.5)
    store = world.scored()
    assert fit_thresholds(store, 0.2, costs) == fit_thresholds(store, 0.2)
