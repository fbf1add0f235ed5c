"""Kedro runs in MLflow, however they end."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline

from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.hooks import TrackingHooks

if TYPE_CHECKING:
    from pathlib import Path

Sessions = Callable[..., subprocess.Popen[str]]


def runs_in(project: Path) -> dict[str, Any]:
    """The runs of the project's store, by pipeline and status."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("toyset")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    return {f"{run.data.tags['pipeline']} {run.info.status}": run for run in found}


def test_finished_failed_and_untracked_runs(project: Path, sessions: Sessions) -> None:
    process = sessions(
        ("trivial", {}), ("__default__", {}), ("training", {"training": {"fail": "data"}})
    )
    output, _ = process.communicate(timeout=120)

    # Only the tracked run imported MLflow, and nothing heavy was imported for the first.
    assert "trivial {'heavy': []}" in output
    runs = runs_in(project)
    assert set(runs) == {"__default__ FINISHED", "training FAILED"}

    finished = runs["__default__ FINISHED"]
    assert finished.data.metrics == {"mono/image_auroc": 0.9, "loss": 1.0}
    assert finished.data.params["training.learning_rate"] == "0.2"
    assert finished.data.params["training.inner.size"] == "4"
    assert finished.data.tags["dataset"] == "toyset"
    artifacts = project / "mlartifacts" / finished.info.run_id / "artifacts"
    assert {path.name for path in artifacts.iterdir()} == {"metrics.json", "report.html"}

    failed = runs["training FAILED"]
    assert failed.data.tags["error"] == "DataError: raw/x.png is empty; copy it again"
    for shown in (finished.info.run_id, "data/report.html", "mlflow ui --backend-store-uri"):
        assert shown in output


def test_figures_tables_and_the_digest_of_the_data(project: Path, sessions: Sessions) -> None:
    process = sessions(("validation", {}), ("retrain", {}))
    output, _ = process.communicate(timeout=120)
    (run,) = runs_in(project).values()
    assert run.info.status == "FINISHED", output
    assert re.fullmatch("[0-9a-f]{64}", run.data.tags["data_digest"])
    artifacts = project / "mlartifacts" / run.info.run_id / "artifacts"
    assert (artifacts / "figures" / "mono.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((artifacts / "table.json").read_text())["data"] == [["a"]]
    shown = json.loads(run.data.tags["mlflow.loggedArtifacts"])  # what MLflow's page reads
    assert shown == [{"path": "table.json", "type": "table"}]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_is_killed_in_mlflow(
    project: Path, sessions: Sessions, end: signal.Signals
) -> None:
    process = sessions(("training", {"training": {"fail": "sleep"}}))
    deadline = time.monotonic() + 90
    while not (project / "sleeping").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    process.send_signal(end)
    output, _ = process.communicate(timeout=60)

    assert process.returncode != 0, output
    (run,) = runs_in(project).values()
    assert run.info.status == "KILLED"
    assert run.info.end_time is not None
    assert run.info.run_id == (project / "sleeping").read_text()  # nodes can find the run
    assert (project / "unwound").exists()  # and can stop what they started


def test_without_a_server_the_run_does_all_its_work(project: Path, sessions: Sessions) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    process = sessions(
        ("__default__", {}),
        MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )
    output, _ = process.communicate(timeout=120)

    assert json.loads((project / "data" / "metrics.json").read_text())["categories"]
    assert (project / "data" / "report.html").exists()
    assert "__default__ raised" not in output
    assert "the run goes on" in output
    assert "did not get" in output
    assert not (project / "mlflow.db").exists()


def test_an_unknown_kind_of_metadata_stops_the_run_before_it_starts(tmp_path: Path) -> None:
    entry = {
        "type": "text.TextDataset",
        "filepath": str(tmp_path / "report.html"),
        "metadata": {"mlflow": "picture"},
    }
    catalog = DataCatalog.from_config({"report": entry})
    pipeline = Pipeline([Node(lambda: "<p>", None, "report", name="write")])
    with pytest.raises(ConfigurationError, match=r"'report' has metadata.mlflow: 'picture'"):
        TrackingHooks(tracked=["training"]).before_pipeline_run(
            {"pipeline_names": ["training"]}, pipeline, catalog
        )
