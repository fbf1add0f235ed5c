"""The gates of the promotion as pure functions: which of them fail, and what they say."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from decodiff_pipeline.registry.config import ComparisonGates, PromotionConfig
from decodiff_pipeline.registry.gates import (
    Gate,
    can_be_overridden,
    chance_of_as_many,
    failed,
    judge,
)
from decodiff_pipeline.registry.model_comparison import (
    FalsePositives,
    GateInputs,
    ModelComparison,
    PairedDifference,
    ThresholdFit,
    recalls,
)
from decodiff_pipeline.serving.serving_check import ServingResult

METRICS = {
    "mono": {"image_auroc": 0.92, "pixel_aupro": None},
    "poly": {"image_auroc": 0.77, "pixel_aupro": None},
}


def gate_inputs(**changes: Any) -> GateInputs:
    """Inputs of a version that passes every gate, with replacements by keyword."""
    serving = ServingResult(None, True, 1e-6, 80.0, 30.0)
    return GateInputs(**{"serving": serving, "metrics": METRICS, **changes})


def against(difference: float, width: float, *, mean: float = 0.01) -> ModelComparison:
    """A comparison with one category, whose interval extends by ``width`` to either side."""
    one = PairedDifference(
        0.8 + difference, 0.8, difference, difference - width, difference + width
    )
    all_of_them = PairedDifference(0.8 + mean, 0.8, mean, mean - width, mean + width)
    return ModelComparison({"mono": {"image_auroc": one}}, {"image_auroc": all_of_them})


def fitted(n: int, target: float | None = 0.05) -> dict[str, dict[str, ThresholdFit]]:
    """A threshold that is fitted to n images."""
    nominal = max(1 / (n + 1), target or 0) if n else None
    return {"thresholds": {"mono": ThresholdFit(n, nominal, target)}}


def flagged(count: int, n_calibration: int = 99) -> FalsePositives:
    """False positives of 100 good test images."""
    return FalsePositives(count, 100, nominal=0.05, n_calibration=n_calibration)


def the_gate(name: str, inputs: GateInputs, category: str = "", **config: Any) -> Gate:
    """The only gate of that name."""
    gates = judge(inputs, PromotionConfig(**config))
    (gate,) = [g for g in gates if g.name == name and category in ("", g.category)]
    return gate


FLOORS = {"floors": {"image_auroc": 0.8}}
MISSES_MOST = {"metrics": {"mono": {"image_auroc": 0.9, "recall": 0.2}}}
LARGER_LOSS = ComparisonGates(
    regression={"image_auroc": 0.01}, by_category={"mono": {"image_auroc": 0.05}}
)


@pytest.mark.parametrize(
    ("inputs", "config", "expected"),
    [
        ({}, {}, []),
        ({}, FLOORS, [("minimum", "poly")]),
        ({}, {**FLOORS, "category_floors": {"poly": {"image_auroc": 0.7}}}, []),
        ({}, {"floors": {"pixel_aupro": 0.5}}, []),  # it cannot be measured
        ({"metrics": {"mono": {"image_auroc": None}}}, {}, [("evidence", "all")]),
        ({"metrics": {"mono": {"image_auroc": None, "recall": 1.0}}}, {}, [("evidence", "all")]),
        (MISSES_MOST, {}, [("minimum", "mono")]),
        (MISSES_MOST, {"category_floors": {"mono": {"recall": 0.1}}}, []),
        ({"champion": against(-0.03, 0.01)}, {"champion": LARGER_LOSS}, []),
        # A better mean does not make up for a lost category.
        ({"champion": against(-0.3, 0.05, mean=0.1)}, {}, [("no loss against champion", "mono")]),
        ({"baseline": against(0.1, 0.01, mean=0.1)}, {}, []),
        (
            {"baseline": against(-0.1, 0.01, mean=-0.1)},
            {},
            [("no loss against PCA", "mono"), ("gain over PCA", "mean")],
        ),
        ({"false_positives": {"mono": flagged(8)}}, {}, []),
        ({"false_positives": {"mono": flagged(30)}}, {}, [("false-positive rate", "mono")]),
        (fitted(19), {}, []),
        (fitted(18), {}, [("target rate", "mono")]),
        (fitted(3), {}, [("calibration", "mono"), ("target rate", "mono")]),
        (fitted(0), {}, [("calibration", "mono")]),
        (fitted(12, target=None), {}, []),
        (fitted(3), {"min_calibration_images": 3, "false_positive_rate": 0.25}, []),
        ({"serving": ServingResult(None, True, 0.01, 80, 30)}, {}, [("serving scores", "all")]),
        ({"serving": ServingResult(None, True, 0, 3000, 30)}, {}, [("latency", "all")]),
        ({"serving": ServingResult(None, True, 0, 80, 3000)}, {}, [("size", "all")]),
        ({"lost": ("ring",)}, {}, [("category kept", "ring")]),
        ({"lost": ("ring",)}, {"may_lose": ("ring",)}, []),
        ({"champion_error": "no file"}, {}, [("champion loads", "all")]),
        ({"champion_error": "no file"}, {"unloadable_champion": "judge_alone"}, []),
        ({"rolled_back": "false alarms"}, {}, [("not rolled back", "all")]),
    ],
)
def test_gates_that_fail(
    inputs: dict[str, Any], config: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    gates = judge(gate_inputs(**inputs), PromotionConfig(**config))
    assert [(gate.name, gate.category) for gate in failed(gates)] == expected
    assert can_be_overridden(gates)


@pytest.mark.parametrize(
    ("serving", "name"),
    [
        (ServingResult(error="it does not load"), "serving answers"),
        (ServingResult(files_as_registered=False), "serving files"),
    ],
)
def test_a_version_that_does_not_answer_cannot_be_overridden(
    serving: ServingResult, name: str
) -> None:
    gates = judge(gate_inputs(serving=serving), PromotionConfig())
    assert [gate.name for gate in failed(gates)] == [name]
    assert not can_be_overridden(gates)


def test_a_gate_says_what_was_measured() -> None:
    gate = the_gate("minimum", gate_inputs(), "poly", floors={"image_auroc": 0.6})
    assert (gate.metric, gate.value, gate.limit) == ("image_auroc", 0.77, 0.6)
    gate = the_gate("minimum", gate_inputs(), "mono", floors={"pixel_aupro": 0.5})
    assert (gate.value, gate.passed) == (None, True)
    assert "not measured" in gate.explanation
    text = the_gate("target rate", gate_inputs(**fitted(18))).explanation
    assert "0.053 at best; at most 0.050 is asked, for which 19 images are needed" in text
    assert (
        "no file" in the_gate("champion loads", gate_inputs(champion_error="no file")).explanation
    )
    assert (
        "a reason" in the_gate("not rolled back", gate_inputs(rolled_back="a reason")).explanation
    )


@pytest.mark.parametrize(
    ("difference", "width", "within_noise", "passes"),
    [
        (-0.005, 0.002, "pass", True),  # a certain loss of an allowed size
        (-0.03, 0.05, "pass", True),  # larger than allowed, but it may be noise
        (-0.03, 0.01, "pass", False),  # larger than allowed, and no noise
        (-0.005, 0.002, "refuse", True),
        (0.01, 0.05, "refuse", False),  # a gain, but a loss cannot be excluded
        (-0.03, 0.01, "refuse", False),
    ],
)
def test_a_loss_in_a_category(
    difference: float, width: float, within_noise: Any, passes: bool
) -> None:
    gates = ComparisonGates(regression={"image_auroc": 0.01}, within_noise=within_noise)
    inputs = gate_inputs(champion=against(difference, width))
    gate = the_gate("no loss against champion", inputs, champion=gates)
    assert gate.passed is passes
    assert gate.interval == (difference - width, difference + width)
    assert (gate.value, gate.reference, gate.limit) == (0.8 + difference, 0.8, -0.01)


@pytest.mark.parametrize(
    ("mean", "required", "within_noise", "passes"),
    [
        (0.01, 0.0, "pass", True),
        (-0.001, 0.0, "pass", False),
        (-0.001, -0.005, "pass", True),
        (0.01, 0.0, "refuse", False),  # the interval contains losses
        (0.03, 0.0, "refuse", True),
        (0.03, 0.02, "refuse", False),
    ],
)
def test_the_improvement_of_the_mean(
    mean: float, required: float, within_noise: Any, passes: bool
) -> None:
    gates = ComparisonGates(improvement={"image_auroc": required}, within_noise=within_noise)
    inputs = gate_inputs(champion=against(0.0, 0.02, mean=mean))
    gate = the_gate("gain over champion", inputs, champion=gates)
    assert (gate.passed, gate.category) == (passes, "mean")


def test_recalls_count_defective_images_at_the_threshold() -> None:
    tests = pd.DataFrame({"category": "mono", "label": ["defective"] * 10 + ["good"]})
    tests["score"] = [0.9] * 2 + [0.1] * 9
    assert recalls(tests, {"categories": {"mono": {"threshold": 0.5}}}) == {"mono": 0.2}


def test_the_chance_is_that_of_exchangeable_scores() -> None:
    # One calibration image, one test image: the second is the larger in half of all cases.
    assert math.isclose(chance_of_as_many(FalsePositives(1, 1, 0.5, 1)), 0.5)
    # 19 and 2, the largest as the threshold: both above it in 1 / (21 choose 2) of all cases.
    assert math.isclose(chance_of_as_many(FalsePositives(2, 2, 0.05, 19)), 1 / 210)
    assert math.isclose(chance_of_as_many(FalsePositives(0, 50, 0.05, 19)), 1.0)
    assert chance_of_as_many(flagged(30, n_calibration=19)) > chance_of_as_many(flagged(30))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"override_reason": "   "}, "override_reason"),
        ({"baseline": {"improvement": {"pixel_ap": 0.0}}}, "image metrics alone"),
    ],
)
def test_invalid_parameters(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PromotionConfig.model_validate(config)
