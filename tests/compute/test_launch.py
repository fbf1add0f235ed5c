"""Work that is divided among processes: what comes back, and how all of them end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import BaseModel

from decodiff_pipeline.compute import config
from decodiff_pipeline.compute.config import ComputeConfig, Workers, available_cores, plan
from decodiff_pipeline.compute.group import Group, current_group
from decodiff_pipeline.compute.launch import launch
from decodiff_pipeline.errors import ComputeError, ConfigurationError, DataError

MODULE = Path(__file__)
SLOW = pytest.mark.slow
WORKERS = Workers("cpu", 2, 1)
FAULTS = {
    "data": DataError("nut.png is empty; replace it"),
    "unexpected": RuntimeError("boom\nin two lines"),
    "full": OSError(28, "No space left on device", "cache/shard"),
    "memory": MemoryError("Unable to allocate 9 GiB"),
}


class Job(BaseModel):
    fault: str = ""
    folder: str = ""


def work(content: str, group: Group) -> Any:
    """What the processes of these tests do; one of them may fail."""
    import torch

    job = Job.model_validate_json(content)
    if job.folder:
        (Path(job.folder) / str(os.getpid())).touch()
        time.sleep(120)
    if group.rank == 1 and job.fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if group.rank == 1 and job.fault:
        raise FAULTS[job.fault]
    logging.getLogger("decodiff_pipeline.test").warning("all see this")
    if group.rank == 1:
        logging.getLogger("decodiff_pipeline.test").warning("image %s is odd", "a.png")
    group.barrier()
    assert current_group() is group
    first = group.broadcast({"third": 1 / 3} if group.first else None)
    return [group.gather([group.rank, first]), torch.get_num_threads()]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(MODULE.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


def test_results_and_warnings_come_back(caplog: pytest.LogCaptureFixture) -> None:
    seen = [[0, {"third": 1 / 3}], [1, {"third": 1 / 3}]]
    assert launch("test_launch:work", Job(), WORKERS) == [[seen, 1], [seen, 1]]
    # The first process has the terminal, and says by itself what it has to say.
    assert caplog.messages == ["image a.png is odd (rank 1 of 2 processes)"]


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("data", DataError, r"^nut.png is empty; replace it \(rank 1 of 2 processes\)$"),
        pytest.param(
            "unexpected",
            ComputeError,
            r"^RuntimeError: boom \(rank 1 of 2 processes\); the lines",
            marks=SLOW,
        ),
        pytest.param(
            "memory", ComputeError, "9 GiB.*rank 1.*memory ran out: set compute", marks=SLOW
        ),
        pytest.param("full", OSError, "No space left.*rank 1 of 2.*cache/shard", marks=SLOW),
        ("killed", ComputeError, "^rank 1 of 2 processes was ended by SIGKILL.*give the same"),
    ],
)
def test_an_error_names_rank_and_cause(fault: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        launch("test_launch:work", Job(fault=fault), WORKERS)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=SLOW),
        pytest.param(signal.SIGKILL, marks=SLOW),
    ],
)
def test_workers_end_with_the_launcher(number: signal.Signals, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()
    code = (
        f"from test_launch import *; launch('test_launch:work', Job(folder={str(seen)!r}), WORKERS)"
    )
    scratch = tmp_path / "scratch"  # SIGKILL leaves the job file
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch)}
    launcher = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.DEVNULL, env=environment
    )
    deadline = time.monotonic() + 120
    while len(list(seen.iterdir())) < WORKERS.processes:
        assert time.monotonic() < deadline and launcher.poll() is None
        time.sleep(0.1)
    launcher.send_signal(number)
    assert launcher.wait(10) != 0
    workers = [int(file.name) for file in seen.iterdir()]
    deadline = time.monotonic() + 10
    while any(map(psutil.pid_exists, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_auto_is_a_process_per_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "available_cores", lambda: 8)
    auto = ComputeConfig(device="cpu")
    assert plan(auto, most=100) == ("cpu", 8, 1)
    assert plan(auto, most=3) == ("cpu", 3, 2)
    assert plan(auto, most=100, worth=False) == ("cpu", 1, None)
    assert plan(ComputeConfig(device="cpu", processes=2, threads=3), most=9) == ("cpu", 2, 3)
    for most, reason in ((100, "8 cores"), (4, "4 images")):
        with pytest.raises(ConfigurationError, match=f"processes is 9, but there are {reason}"):
            plan(ComputeConfig(device="cpu", processes=9), most=most)


def test_cores_are_those_that_this_process_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(6)}, raising=False)
    assert available_cores() == 6
    for quota, cores in (("250000 100000", 2), ("50000 100000", 1), ("max 100000", 6)):
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
        assert available_cores() == cores
