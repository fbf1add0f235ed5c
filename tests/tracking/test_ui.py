"""MLflow's page: on the runs of the data set, in two processes that end together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request

import psutil
import pytest

from decodiff_pipeline.tracking.ui import runs_page


def test_the_page_is_that_of_the_data_sets_runs(store: str) -> None:
    import mlflow

    assert runs_page(store, "bolts") == "#/experiments"
    number = mlflow.create_experiment("bolts")
    assert runs_page(store, "bolts") == f"#/experiments/{number}/runs"


@pytest.mark.slow
def test_ending_the_command_ends_the_server(store: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "decodiff_pipeline.tracking.ui", "bolts", "--port", str(port)]
    variables = {"MLFLOW_TRACKING_URI": store, "BROWSER": "true"}
    process = psutil.Popen(command, env=os.environ | variables, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        servers = process.children(recursive=True)
        assert len(servers) == 1
        process.terminate()
        process.wait(60)
        assert not psutil.wait_procs(servers, 10)[1]
    finally:
        for left in [*process.children(recursive=True), process] if process.is_running() else []:
            left.kill()
