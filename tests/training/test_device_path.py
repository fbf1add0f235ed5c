"""How a training runs on a GPU, which is not waited for, tried on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.models import small_pipeline
from torch.utils._python_dispatch import TorchDispatchMode

from decodiff_pipeline.deco.device import prefer_compiled
from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.training import objective
from decodiff_pipeline.training.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable

    from decodiff_pipeline.training.loop import TrainingRun

SELDOM = {"log_every": 1000, "validate_every": 1000, "checkpoint_every": 1000}


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are read where they are logged, and batches are made ahead."""
    monkeypatch.setattr(TrainingState, "is_waiting", property(lambda _: False))


class HostReads(TorchDispatchMode):
    """Counts what a GPU would be waited for: single numbers, and places by a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket in (
            torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero,
            torch.ops.aten.is_nonzero, torch.ops.aten.masked_select,
        )  # fmt: skip
        return func(*args, **(kwargs or {}))


def test_losses_read_late_are_the_same(
    tiny_run: Callable[..., TrainingRun], request: pytest.FixtureRequest
) -> None:
    options = {"log_every": 3, "checkpoint_every": 4, "accumulation": 2}
    runs = [tiny_run("one", **options)]
    networks = [runs[0].run().state_dict()]
    request.getfixturevalue("as_on_a_gpu")
    runs.append(tiny_run("other", **options))
    networks.append(runs[1].run().state_dict())
    logs = [[(row["step"], row["loss"]) for row in run.log] for run in runs]
    assert logs[0] == logs[1]
    for name, tensor in networks[0].items():
        assert torch.equal(tensor, networks[1][name])


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_loss_that_is_no_number_is_found_before_it_is_saved(
    tiny_run: Callable[..., TrainingRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = tiny_run(log_every=6, checkpoint_every=4)
    loss = objective.deviation_loss
    monkeypatch.setattr(
        objective,
        "deviation_loss",
        lambda *args: loss(*args) * (float("nan") ** (training.step == 4)),
    )
    with pytest.raises(ModelError, match=r"loss is nan at step 5; .*is that of step 4"):
        training.run()


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_step_reads_no_more_of_a_larger_batch(tiny_run: Callable[..., TrainingRun]) -> None:
    def reads(steps: int, batch: int) -> int:
        training = tiny_run(f"{steps} {batch}", steps=steps, dropout=0.0, **SELDOM)
        training.batches.batch_size = batch
        with HostReads() as found:
            training.run()
        return found.count

    for batch in (2, 5):
        # The size of the patches is drawn on the host, and read there.
        assert reads(10, batch) - reads(6, batch) == 4


def test_networks_are_compiled_where_asked_for(
    tiny_run: Callable[..., TrainingRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[torch.nn.Module] = []

    def compile_network(self: torch.nn.Module) -> None:
        compiled.append(self)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_network)
    training, model = tiny_run(), small_pipeline(["a"])
    prefer_compiled(True)
    try:
        training.run()
        model.for_inference()
    finally:
        prefer_compiled(False)
    assert compiled == [training.unet, model.unet]
