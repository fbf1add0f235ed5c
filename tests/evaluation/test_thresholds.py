"""The promise of the thresholds, and where it cannot be kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from decodiff_pipeline.evaluation.thresholds import conformal_threshold, fit_thresholds

if TYPE_CHECKING:
    from tests.evaluation.conftest import World


@pytest.mark.parametrize(("n", "alpha", "flagged"), [(19, 0.05, 0), (39, 0.05, 1), (99, 0.1, 9)])
def test_with_enough_images_the_promise_is_what_was_asked(
    n: int, alpha: float, flagged: int
) -> None:
    scores = np.random.default_rng(0).permutation(n).astype(np.float32)
    found = conformal_threshold(scores, alpha)
    assert (scores >= found["threshold"]).sum() == flagged
    assert found["promised_false_positive_rate"] == pytest.approx(alpha)
    assert found["sufficient"]


def test_with_too_few_images_the_best_promise_is_stated() -> None:
    scores = np.arange(9, dtype=np.float32)
    found = conformal_threshold(scores, 0.05)
    assert (scores >= found["threshold"]).sum() == 0
    assert found["promised_false_positive_rate"] == pytest.approx(1 / 10)
    assert not found["sufficient"]


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
    assert found["threshold"] > 1
    assert np.float32(found["threshold"]) == np.nextafter(np.float32(1), np.float32(2))


def test_without_images_there_is_no_threshold() -> None:
    assert conformal_threshold(np.empty(0, np.float32), 0.05) == {
        "threshold": None,
        "promised_false_positive_rate": None,
        "sufficient": False,
    }


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


def test_a_category_without_calibration_images_has_no_threshold(world: World) -> None:
    world.add("plate", "test", "good", 2)
    entry = fit_thresholds(world.scored(), 0.05)["categories"]["plate"]
    assert (entry["threshold"], entry["pixel_threshold"]) == (None, None)
    assert entry["n_calibration"] == 0
