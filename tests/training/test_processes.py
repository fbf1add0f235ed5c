"""Several processes train as one does."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from tests.contract import chain
from tests.training.processes import WORK, job, train

from decodiff_pipeline.compute.config import ComputeConfig
from decodiff_pipeline.deco.unet import PRESETS, UNetPreset
from decodiff_pipeline.errors import CheckpointError, ComputeError
from decodiff_pipeline.pipelines.training import create_pipeline
from decodiff_pipeline.training.checkpoints import CheckpointStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from decodiff_pipeline.training.checkpoints import Checkpoint


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


def assert_the_same(one: Checkpoint, other: Checkpoint) -> None:
    assert one.identity == other.identity
    assert (one.best is None) == (other.best is None)
    assert (one.best or {}) == pytest.approx(other.best or {}, rel=1e-5)
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


@pytest.mark.slow
def test_the_training_node_gives_the_same_with_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The workers know nothing of this folder's smaller networks.
    monkeypatch.setitem(PRESETS, "nano", UNetPreset(32, 1, 64, norm_groups=8))
    results = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        primary, latents = (
            folder / "data" / name / "contract" for name in ("03_primary", "04_feature")
        )
        primary.mkdir(parents=True)
        shutil.copy(chain.FIXTURES / "manifest.parquet", primary)
        shutil.copytree(chain.FIXTURES / "latents", latents / "latents")
        chosen = chain.parameters(chain.FIXTURES / "autoencoder")
        chosen["params:compute"] = ComputeConfig(processes=processes)
        catalog = chain.run(create_pipeline().only_nodes("train_network"), folder, chosen)
        log, summary = catalog.load("training_log"), catalog.load("training_summary")
        for row in (*log, summary["last"]):
            del row["images_per_second"]
        results.append((log, summary))
    for row, other in zip(results[0][0], results[1][0], strict=True):
        assert other == pytest.approx(row, rel=1e-4)
    assert results[1][1]["last"] == results[1][0][-1]
    for key in ("parameters", "images", "start"):
        assert results[0][1][key] == results[1][1][key]


@pytest.mark.slow
def test_two_nodes_of_which_one_is_killed(tmp_path: Path) -> None:
    """Two launchers as a scheduler starts them, one rendezvous on loopback, one shared folder.

    The other one ends as well; started again, both go on.
    """
    options = {"steps": 24}
    one = train(tmp_path / "one", 1, **options)
    folder = tmp_path / "nodes"
    folder.mkdir()
    content = {"work": WORK, "job": job(folder, options).model_dump_json(), "launcher": None,
               "device": "cpu", "threads": 1, "compile": False}  # fmt: skip
    (folder / "job.json").write_text(json.dumps(content))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def node() -> subprocess.Popen[bytes]:
        command = [
            sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1",
            "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test",
            "--local-addr=127.0.0.1",
            "-m", "decodiff_pipeline.distributed", "--job", str(folder / "job.json"),
        ]  # fmt: skip
        return subprocess.Popen(command, stderr=subprocess.DEVNULL)

    store = CheckpointStore(folder / "checkpoints")
    nodes = [node(), node()]
    try:
        wait_until(lambda: bool(store.steps()))
        nodes[1].kill()
        assert nodes[0].wait(60) != 0  # it does not wait for ever
        nodes += [node(), node()]
        assert [each.wait(300) for each in nodes[2:]] == [0, 0]
    finally:
        for each in nodes:
            each.kill()
            each.wait()
    other = store.latest()
    assert other.processes == 2
    assert_the_same(one, other)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait at most three minutes."""
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
