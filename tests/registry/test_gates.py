"""The verdict as a pure function: what passes, what fails, and what is said of it."""

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

ANSWERS = ServingResult(None, True, 1e-6, 80.0, 30.0)


def gate_inputs(**changes: Any) -> GateInputs:
    """Of a version that has nothing against it, with anything replaced by keyword."""
    facts: dict[str, Any] = {
        "serving": ANSWERS,
        "metrics": {
            "mono": {"image_auroc": 0.92, "pixel_aupro": None},
            "poly": {"image_auroc": 0.77, "pixel_aupro": None},
        },
    }
    return GateInputs(**{**facts, **changes})


def against(difference: float, width: float, *, mean: float = 0.01) -> ModelComparison:
    """A comparison with one category, whose interval reaches as far to either side."""
    one = PairedDifference(
        0.8 + difference, 0.8, difference, difference - width, difference + width
    )
    all_of_them = PairedDifference(0.8 + mean, 0.8, mean, mean - width, mean + width)
    return ModelComparison({"mono": {"image_auroc": one}}, {"image_auroc": all_of_them})


def failures(found: GateInputs, config: PromotionConfig | None = None) -> list[tuple[str, str]]:
    """Name and category of the gates that were not passed."""
    return [(g.name, g.category) for g in failed(judge(found, config or PromotionConfig()))]


def the_gate(name: str, gates: list[Gate], category: str | None = None) -> Gate:
    """The one gate of that name."""
    (gate,) = [g for g in gates if g.name == name and category in (None, g.category)]
    return gate


def test_a_first_version_is_asked_what_can_be_asked_without_a_champion() -> None:
    gates = judge(gate_inputs(), PromotionConfig())
    assert not failed(gates)
    assert {"serving files", "serving answers", "latency", "size", "minimum"} <= {
        gate.name for gate in gates
    }
    assert not [gate for gate in gates if "champion" in gate.name]


def test_floors_are_per_metric_and_category() -> None:
    config = PromotionConfig(
        floors={"image_auroc": 0.8}, category_floors={"poly": {"image_auroc": 0.7}}
    )
    assert failures(gate_inputs(), config) == []
    assert failures(gate_inputs(), PromotionConfig(floors={"image_auroc": 0.8})) == [
        ("minimum", "poly")
    ]
    gate = the_gate("minimum", judge(gate_inputs(), config), "poly")
    assert (gate.metric, gate.value, gate.limit) == ("image_auroc", 0.77, 0.7)


def test_what_cannot_be_measured_stops_nobody_but_nothing_at_all_does() -> None:
    config = PromotionConfig(floors={"pixel_aupro": 0.5})
    assert failures(gate_inputs(), config) == []
    gate = the_gate("minimum", judge(gate_inputs(), config), "mono")
    assert (gate.value, gate.passed) == (None, True)
    assert "not measured" in gate.explanation
    nothing = gate_inputs(metrics={"mono": {"image_auroc": None}})
    assert failures(nothing) == [("evidence", "all")]


@pytest.mark.parametrize(
    ("difference", "width", "within_noise", "passes"),
    [
        (-0.005, 0.002, "pass", True),  # shown to be a loss, of an allowed size
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
    found = gate_inputs(champion=against(difference, width))
    gate = the_gate("no loss against champion", judge(found, PromotionConfig(champion=gates)))
    assert gate.passed is passes
    assert gate.interval == (difference - width, difference + width)
    assert (gate.value, gate.reference, gate.limit) == (0.8 + difference, 0.8, -0.01)


def test_a_category_may_be_allowed_a_larger_loss() -> None:
    found = gate_inputs(champion=against(-0.03, 0.01))
    gates = ComparisonGates(
        regression={"image_auroc": 0.01}, by_category={"mono": {"image_auroc": 0.05}}
    )
    assert failures(found, PromotionConfig(champion=gates)) == []


@pytest.mark.parametrize(
    ("mean", "required", "within_noise", "passes"),
    [
        (0.01, 0.0, "pass", True),
        (-0.001, 0.0, "pass", False),
        (-0.001, -0.005, "pass", True),
        (0.01, 0.0, "refuse", False),  # its interval reaches below
        (0.03, 0.0, "refuse", True),
        (0.03, 0.02, "refuse", False),
    ],
)
def test_the_improvement_of_the_mean(
    mean: float, required: float, within_noise: Any, passes: bool
) -> None:
    gates = ComparisonGates(improvement={"image_auroc": required}, within_noise=within_noise)
    found = gate_inputs(champion=against(0.0, 0.02, mean=mean))
    gate = the_gate("gain over champion", judge(found, PromotionConfig(champion=gates)))
    assert (gate.passed, gate.category) == (passes, "mean")


def test_a_better_mean_does_not_make_up_for_a_lost_category() -> None:
    found = gate_inputs(champion=against(-0.3, 0.05, mean=0.1))
    assert failures(found) == [("no loss against champion", "mono")]


def test_the_pca_has_to_be_beaten() -> None:
    assert failures(gate_inputs(baseline=against(0.1, 0.01, mean=0.1))) == []
    worse = gate_inputs(baseline=against(-0.1, 0.01, mean=-0.1))
    assert failures(worse) == [("no loss against PCA", "mono"), ("gain over PCA", "mean")]
    with pytest.raises(ValidationError, match="image metrics alone"):
        PromotionConfig(baseline=ComparisonGates(improvement={"pixel_ap": 0.0}))


def test_thresholds_are_blamed_only_where_chance_does_not_explain_it() -> None:
    counts = {"nominal": 0.05, "n_calibration": 99}
    assert failures(gate_inputs(false_positives={"mono": FalsePositives(8, 100, **counts)})) == []
    blamed = gate_inputs(false_positives={"mono": FalsePositives(30, 100, **counts)})
    assert failures(blamed) == [("false-positive rate", "mono")]
    # Few calibration images: as many false positives are no wonder.
    few = FalsePositives(30, 100, nominal=0.05, n_calibration=19)
    assert chance_of_as_many(few) > chance_of_as_many(FalsePositives(30, 100, **counts))


def test_a_threshold_fitted_to_too_few_images_is_refused() -> None:
    def fitted(n: int, target: float | None = 0.05) -> GateInputs:
        nominal = max(1 / (n + 1), target or 0) if n else None
        return gate_inputs(thresholds={"mono": ThresholdFit(n, nominal, target)})

    assert failures(fitted(19)) == []
    assert failures(fitted(18)) == [("target rate", "mono")]
    text = the_gate("target rate", judge(fitted(18), PromotionConfig())).explanation
    assert "0.053 at best; at most 0.050 is asked, for which 19 images are needed" in text
    both = [("calibration", "mono"), ("target rate", "mono")]
    assert failures(fitted(3)) == both
    assert failures(fitted(0)) == both[:1]
    assert failures(fitted(12, target=None)) == []
    loose = PromotionConfig(min_calibration_images=3, false_positive_rate=0.25)
    assert failures(fitted(3), loose) == []


def test_what_misses_most_defects_is_refused() -> None:
    tests = pd.DataFrame({"category": "mono", "label": ["defective"] * 10 + ["good"]})
    tests["score"] = [0.9] * 2 + [0.1] * 9
    found = recalls(tests, {"categories": {"mono": {"threshold": 0.5}}})
    assert found == {"mono": 0.2}
    blind = gate_inputs(metrics={"mono": {"image_auroc": 0.9, "recall": found["mono"]}})
    assert failures(blind) == [("minimum", "mono")]
    text = the_gate("minimum", failed(judge(blind, PromotionConfig()))).explanation
    assert text == "0.200; at least 0.250 is asked"
    allowed = PromotionConfig(category_floors={"mono": {"recall": 0.1}})
    assert failures(blind, allowed) == []
    # What is found says nothing of good images.
    alone = gate_inputs(metrics={"mono": {"image_auroc": None, "recall": 1.0}})
    assert failures(alone) == [("evidence", "all")]


def test_the_chance_is_that_of_exchangeable_scores() -> None:
    # One calibration image, one test image: the second is the larger in half of all cases.
    assert math.isclose(chance_of_as_many(FalsePositives(1, 1, 0.5, 1)), 0.5)
    # 19 and 2, the largest as the threshold: both above it in 1 / (21 choose 2) of all cases.
    assert math.isclose(chance_of_as_many(FalsePositives(2, 2, 0.05, 19)), 1 / 210)
    assert math.isclose(chance_of_as_many(FalsePositives(0, 50, 0.05, 19)), 1.0)


@pytest.mark.parametrize(
    ("serving", "gate"),
    [
        (ServingResult(None, True, 0.01, 80, 30), "serving scores"),
        (ServingResult(None, True, 0, 3000, 30), "latency"),
        (ServingResult(None, True, 0, 80, 3000), "size"),
    ],
)
def test_serving_has_a_tolerance_and_budgets(serving: ServingResult, gate: str) -> None:
    assert failures(gate_inputs(serving=serving)) == [(gate, "all")]


@pytest.mark.parametrize(
    ("serving", "name"),
    [
        (ServingResult(error="it does not load"), "serving answers"),
        (ServingResult(files_as_registered=False), "serving files"),
    ],
)
def test_a_version_that_does_not_answer_is_refused_whatever_the_reason(
    serving: ServingResult, name: str
) -> None:
    gates = judge(gate_inputs(serving=serving), PromotionConfig())
    assert [gate.name for gate in failed(gates)] == [name]
    assert not can_be_overridden(gates)
    assert can_be_overridden(judge(gate_inputs(metrics={}), PromotionConfig()))


def test_a_lost_category_has_to_be_allowed_by_name() -> None:
    assert failures(gate_inputs(lost=("ring",))) == [("category kept", "ring")]
    assert failures(gate_inputs(lost=("ring",)), PromotionConfig(may_lose=("ring",))) == []


def test_a_champion_that_does_not_load_refuses_unless_told_otherwise() -> None:
    found = gate_inputs(champion_error="no such file")
    assert failures(found) == [("champion loads", "all")]
    gate = the_gate("champion loads", judge(found, PromotionConfig()))
    assert "no such file" in gate.explanation
    loose = PromotionConfig(unloadable_champion="judge_alone")
    assert the_gate("champion loads", judge(found, loose)).passed


def test_what_was_rolled_back_does_not_come_back_by_itself() -> None:
    found = gate_inputs(rolled_back="false alarms on line 3")
    assert failures(found) == [("not rolled back", "all")]
    gate = the_gate("not rolled back", judge(found, PromotionConfig()))
    assert "false alarms on line 3" in gate.explanation


def test_a_version_may_be_named_by_its_number() -> None:
    assert PromotionConfig.model_validate({"challenger": 7}).challenger == "7"


@pytest.mark.parametrize("reason", ["", "   "])
def test_an_override_needs_a_reason(reason: str) -> None:
    with pytest.raises(ValidationError, match="override_reason"):
        PromotionConfig(override_reason=reason)
