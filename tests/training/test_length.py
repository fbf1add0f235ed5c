"""How long a training runs: minutes turned into steps, early stop, which network it gives."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import torch
from pydantic import ValidationError

from decodiff_pipeline.errors import CheckpointError, ConfigurationError, ModelError
from decodiff_pipeline.training.budget import measured_budget
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.state import trained_network
from decodiff_pipeline.training.validation import Validation

if TYPE_CHECKING:
    from collections.abc import Callable

    from decodiff_pipeline.training.loop import TrainingRun

    KilledAt = Callable[[TrainingRun, int], None]
    TinyRun = Callable[..., TrainingRun]

MINUTES: dict[str, Any] = {"max_minutes": 0.02, "checkpoint_every": 1}


def tensors(training: TrainingRun) -> dict[str, torch.Tensor]:
    latest = training.store.latest()
    return latest.tensors


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_one_length_is_given() -> None:
    for lengths in ({}, {"steps": 1, "epochs": 1}, {"steps": 1, "max_minutes": 1}):
        with pytest.raises(ValidationError, match=r"exactly one of training\.epochs, training\.st"):
            TrainingConfig.model_validate(lengths)


def test_minutes_become_the_steps_that_fit_with_validations_and_saves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)

    def lasting(seconds: float) -> Callable[..., None]:
        def work(*_: object) -> None:
            nonlocal now
            now += seconds

        return work

    config = TrainingConfig(max_minutes=10, validate_every=10, checkpoint_every=20)
    budget = measured_budget(
        config, train_step=lasting(1.0), validate=lasting(5.0), save=lasting(4.0)
    )
    spent_measuring = now
    steps = budget.steps
    planned = steps + 5.0 * (steps // 10 + 1) + 4.0 * (steps // 20 + 1)
    assert planned + spent_measuring == pytest.approx(600, rel=0.02)


def test_measuring_changes_nothing_but_the_length(tiny_run: TinyRun) -> None:
    measured = tiny_run("measured", **MINUTES)
    measured.run()
    given = tiny_run("given", steps=measured.total)
    given.run()
    assert equal(tensors(measured), tensors(given))
    losses = [[row["loss"] for row in each.log] for each in (measured, given)]
    assert losses[0] == losses[1]


def test_the_measured_length_is_kept_before_and_after_the_first_checkpoint(
    tiny_run: TinyRun,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    killed_at: KilledAt,
) -> None:
    first = tiny_run(**MINUTES)
    with caplog.at_level(logging.INFO):
        killed_at(first, 0)
    assert f"0.02 minutes are {first.total} steps" in caplog.text
    stored = json.loads((first.store.path / "budget.json").read_text())
    assert stored["steps"] == first.total
    monkeypatch.setattr("decodiff_pipeline.training.loop.measured_budget", pytest.fail)
    second = tiny_run(**MINUTES)
    killed_at(second, min(2, first.total - 1))
    (second.store.path / "budget.json").unlink(missing_ok=True)
    third = tiny_run(**MINUTES)
    if third.store.steps():  # a slow machine may plan a single step
        third.run()
        assert third.total == second.total == first.total


def test_other_parameters_are_measured_again(tiny_run: TinyRun, killed_at: KilledAt) -> None:
    first = tiny_run(**MINUTES)
    killed_at(first, 0)
    second = tiny_run(**MINUTES, seed=1)
    killed_at(second, 0)
    stored = json.loads((first.store.path / "budget.json").read_text())
    assert stored["identity"]["seed"] == 1


def test_a_damaged_budget_is_named(tiny_run: TinyRun) -> None:
    training = tiny_run(**MINUTES)
    training.store.path.mkdir()
    (training.store.path / "budget.json").write_text('{"steps": 3')
    with pytest.raises(CheckpointError, match=r"budget\.json is damaged .*delete it"):
        training.run()


def test_training_stops_when_patience_ends_and_gives_the_best(tiny_run: TinyRun) -> None:
    options = {"losses": (3.0, 2.0, 2.5, 2.0, 1.0, 0.5), "patience": 2, "weights": "best",
               "keep_checkpoints": 1}  # fmt: skip
    training = tiny_run(**options)
    returned = training.run()
    assert training.step == 4
    assert training.store.steps() == [2, 4]
    latest = training.store.latest()
    assert latest.finished
    best = training.store.best(latest)
    assert best.step == 2
    for name, parameter in returned.named_parameters():
        assert torch.equal(parameter.cpu(), best.tensors[f"ema.{name}"])
    assert not equal(latest.tensors, best.tensors)

    again = tiny_run(**options)
    again._train_step = pytest.fail  # type: ignore[method-assign, assignment]
    again.run()
    assert again.step == 4

    for ours, given in zip(
        returned.parameters(), trained_network(training.store).parameters(), strict=True
    ):
        assert torch.equal(ours.cpu(), given)


@pytest.mark.parametrize("killed", [2, 3])
def test_patience_is_resumed_as_well(tiny_run: TinyRun, killed: int, killed_at: KilledAt) -> None:
    options = {"losses": (1.0, 2.0, 2.0, 2.0, 0.1, 0.1), "patience": 3, "checkpoint_every": 2}
    whole = tiny_run("whole", **options)
    whole.run()
    killed_at(tiny_run("broken", **options), killed)
    broken = tiny_run("broken", **options)
    broken.run()
    assert broken.step == whole.step == 4
    assert broken.best == whole.best
    assert equal(tensors(broken), tensors(whole))


def test_the_best_synthetic_figure_is_the_highest(tiny_run: TinyRun) -> None:
    training = tiny_run(weights="best", monitor="synthetic_pixel_ap")
    with pytest.raises(ConfigurationError, match=r"synthetic_pixel_ap .*measures held_out_loss;"):
        training.run()
    training.best.update("synthetic_pixel_ap", 1, 0.4)
    assert training.best.update("synthetic_pixel_ap", 2, 0.5)
    assert not training.best.update("synthetic_pixel_ap", 3, 0.45)
    assert training.best.step == 2


def test_patience_without_held_out_images_is_refused_before_training(tiny_run: TinyRun) -> None:
    training = tiny_run(patience=2)
    training.validation = Validation([], training.config.corruption)
    with pytest.raises(ConfigurationError, match=r"no good val images; put good images"):
        training.run()
    assert not training.store.path.exists()


@pytest.mark.parametrize("weights", ["last", "best"])
def test_a_validation_that_is_no_number_stops_the_run(tiny_run: TinyRun, weights: str) -> None:
    options = {"weights": weights, "checkpoint_every": 1, "steps": 3}
    training = tiny_run(losses=(1.0, float("nan"), 1.0), **options)
    with pytest.raises(ModelError, match=r"held_out_loss is nan at step 2; .* step 1; lower"):
        training.run()
    assert training.store.steps() == [1]


def test_a_monitor_without_synthetic_defects_says_how_to_have_them(tiny_run: TinyRun) -> None:
    with pytest.raises(ConfigurationError, match=r"set latent_cache\.synthetic_defects to 1"):
        tiny_run(patience=2, monitor="synthetic_pixel_ap").run()


def test_one_process_trains_in_two_precisions(tiny_run: TinyRun) -> None:
    for bfloat16 in (True, False):
        training = tiny_run(str(bfloat16), bfloat16=bfloat16, steps=1)
        seen = []
        training.unet.unet.conv_in.register_forward_hook(
            lambda _module, _inputs, output, seen=seen: seen.append(output.dtype)
        )
        training.run()
        assert set(seen) == {torch.bfloat16 if bfloat16 else torch.float32}


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Gives the machine a processor with or without bfloat16."""
    return lambda has_bfloat16: monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_bfloat16}
    )


@pytest.mark.parametrize("began", [True, False])
def test_auto_goes_on_on_another_machine_and_says_so(
    tiny_run: TinyRun,
    killed_at: KilledAt,
    processor: Callable[[bool], None],
    caplog: pytest.LogCaptureFixture,
    began: bool,
) -> None:
    processor(began)
    killed_at(tiny_run(bfloat16="auto"), 5)
    processor(not began)
    resumed = tiny_run(bfloat16="auto")
    resumed.run()
    assert [row["step"] for row in resumed.log] == [1, 2, 3, 4, 5, 6]
    assert resumed.state.bfloat16 is not began
    assert f"bfloat16 was {began} when the run began and is {not began}" in caplog.text
    caplog.clear()
    processor(began)
    finished = tiny_run(bfloat16="auto")
    finished.run()
    assert finished.log == resumed.log  # speeds and all: nothing was trained again
    assert "bfloat16" not in caplog.text


def test_an_explicit_precision_must_be_the_checkpoints(
    tiny_run: TinyRun, killed_at: KilledAt, processor: Callable[[bool], None]
) -> None:
    processor(False)
    killed_at(tiny_run(bfloat16="auto"), 5)
    with pytest.raises(CheckpointError, match="bfloat16 was False and is True"):
        tiny_run(bfloat16=True).run()
    assert tiny_run(bfloat16=False).run() is not None


def test_a_damaged_best_checkpoint_is_named(tiny_run: TinyRun) -> None:
    options = {"losses": (3.0, 2.0, 2.5, 2.5, 2.5, 2.5), "weights": "best"}
    training = tiny_run(**options)
    training.run()
    (training.store.path / "checkpoint-00000002.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"best checkpoint .*00000002.* damaged .*never"):
        tiny_run(**options).run()
