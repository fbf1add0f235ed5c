"""MLflow's page: on the runs of the data set, in two processes that end together."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import psutil
import pytest
from tests.servers import free_port, wait_for

from decodiff_pipeline.tracking.ui import runs_page

if TYPE_CHECKING:
    from pathlib import Path


def test_the_page_is_that_of_the_data_sets_runs(store: str) -> None:
    import mlflow

    assert runs_page(store, "bolts") == "#/experiments"
    number = mlflow.create_experiment("bolts")
    assert runs_page(store, "bolts") == f"#/experiments/{number}/runs"


@pytest.mark.slow
def test_ending_the_command_ends_the_server(store: str, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "ui.log"
    command = [sys.executable, "-m", "decodiff_pipeline.tracking.ui", "bolts", "--port", str(port)]
    variables = {"MLFLOW_TRACKING_URI": store, "BROWSER": "true"}
    with log.open("w") as output:
        process = psutil.Popen(command, env=os.environ | variables, stdout=output, stderr=output)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        servers = process.children(recursive=True)
        assert len(servers) == 1
        process.terminate()
        process.wait(60)
        assert not psutil.wait_procs(servers, 10)[1]
    finally:
        for left in [*process.children(recursive=True), process] if process.is_running() else []:
            left.kill()
