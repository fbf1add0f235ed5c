"""Several processes train as one does."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from tests.training.processes import train

from decodiff_pipeline.errors import CheckpointError, ComputeError
from decodiff_pipeline.training.checkpoints import CheckpointStore

if TYPE_CHECKING:
    from decodiff_pipeline.training.checkpoints import Checkpoint


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


def assert_the_same(one: Checkpoint, other: Checkpoint) -> None:
    assert one.identity == other.identity
    assert one.best == pytest.approx(other.best, rel=1e-5)
    for row, now in zip(one.log, other.log, strict=True):
        del row["images_per_second"], now["images_per_second"]
        assert now == pytest.approx(row, rel=1e-5)
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(other.tensors[name], tensor, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("processes", "options"),
    [
        (2, {"optimizer": "muon", "weights": "best", "monitor": "synthetic_pixel_ap"}),
        pytest.param(3, {"optimizer": "adamw"}, marks=pytest.mark.slow),
        pytest.param(2, {"optimizer": "adamw", "accumulation": 2}, marks=pytest.mark.slow),
    ],
)
def test_n_processes_equal_one(processes: int, options: dict[str, object], tmp_path: Path) -> None:
    """Loss, validation, best network and weights; batches of 5 and of 2; dropout."""
    one = train(tmp_path / "one", 1, **options)
    other = train(tmp_path / "other", processes, **options)
    assert (one.processes, other.processes) == (1, processes)
    assert_the_same(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 1])
def test_a_killed_process_ends_the_training_which_resumes(
    processes: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Bit for bit with the same number of processes, to rounding with another."""
    whole = train(tmp_path / "whole", processes)
    with pytest.raises(ComputeError, match="rank 1 of 2 processes was ended by SIGKILL"):
        train(tmp_path / "killed", 2, killed_at=13)
    assert CheckpointStore(tmp_path / "killed" / "checkpoints").steps() == [10]
    with caplog.at_level(logging.INFO):
        resumed = train(tmp_path / "killed", processes)
    if processes == 1:
        assert "begun with compute.processes=2 and goes on with 1" in caplog.text
        assert_the_same(whole, resumed)
        return
    for name, tensor in whole.tensors.items():
        assert torch.equal(tensor, resumed.tensors[name])


def test_a_second_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    with (
        CheckpointStore(tmp_path / "checkpoints").locked(),
        pytest.raises(CheckpointError, match=r"another run is training in .*checkpoints; wait"),
    ):
        train(tmp_path, 1)
