"""Two-sample tests: their level where nothing changed, their power where something did."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from decodiff_pipeline.monitoring.drift import compare, holm, population_stability


def test_p_values_are_uniform_where_nothing_changed() -> None:
    random = np.random.default_rng(0)
    p_values = [
        compare(random.lognormal(size=90), random.lognormal(size=50)).p_value for _ in range(400)
    ]
    # The exact test is discrete and so a little conservative: never above the level by more
    # than chance allows.
    assert kstest(p_values, "uniform").statistic < 0.1
    assert np.mean(np.array(p_values) <= 0.05) <= 0.07


@pytest.mark.parametrize("change", [lambda v: v + 1, lambda v: 5 * v, np.abs])
def test_another_place_width_or_shape_is_found(change) -> None:
    random = np.random.default_rng(1)
    found = compare(random.normal(size=90), change(random.normal(size=50)))
    assert found.p_value < 1e-3
    assert found.psi > 2 * found.psi_expected


def test_ties_and_steps_are_found_too() -> None:
    assert compare(np.full(60, 300.0), np.full(50, 400.0)).p_value < 1e-20
    assert compare(np.full(60, 300.0), np.full(50, 400.0)).shift is None
    assert compare(np.full(60, 300.0), np.full(50, 300.0)) is None
    assert compare(np.array([]), np.ones(3)) is None


def test_the_distance_of_a_mixture_is_at_most_the_share() -> None:
    values = np.random.default_rng(2).normal(size=2000)
    mixed = values.copy()
    mixed[:100] = 50.0
    assert compare(values, mixed).distance == pytest.approx(0.05, abs=0.001)


def test_the_stability_index_of_unchanged_samples_is_what_is_said() -> None:
    random = np.random.default_rng(3)
    found = [compare(random.normal(size=200), random.normal(size=200)) for _ in range(300)]
    assert np.mean([one.psi for one in found]) == pytest.approx(found[0].psi_expected, rel=0.15)


@pytest.mark.parametrize("value", [2.0, 4.0])
def test_the_stability_index_sees_a_constant_move_to_either_side(value: float) -> None:
    index, _ = population_stability(np.full(100, 3.0), np.full(100, value))
    assert index > 2


def test_holm_is_what_the_paper_says() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])
    assert len(holm([])) == 0
