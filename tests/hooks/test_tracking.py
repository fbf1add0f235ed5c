"""Kedro runs in MLflow, however they end."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline
from tests.hooks.conftest import SECRET
from tests.servers import free_port

from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.hooks import TrackingHooks, run_content
from decodiff_pipeline.hooks.tracking import SystemMetrics

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hooks.conftest import History

Sessions = Callable[..., subprocess.Popen[str]]


def runs_in(project: Path) -> dict[str, Any]:
    """The runs of the project's store, by pipeline, status and the beginning of the error."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("toyset")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    return {
        f"{tags['pipeline']} {run.info.status} {tags.get('error', '').split(':')[0]}".strip(): run
        for run in found
        for tags in [run.data.tags]
        if tags["pipeline"] != "dvc"
    }


def artifacts_of(project: Path, run: Any) -> Path:
    return project / "mlartifacts" / run.info.run_id / "artifacts"


def test_a_finished_run_has_what_the_catalog_says(history: History) -> None:
    # Nothing heavy was imported for the first pipeline, which is not tracked.
    assert "trivial {'heavy': []}" in history.output
    runs = runs_in(history.project)
    assert set(runs) == {
        "__default__ FINISHED", "training FAILED DataError", "training FAILED ValueError",
        "retrain FINISHED",
    }  # fmt: skip
    finished = runs["__default__ FINISHED"]
    charted = {"mono/image_auroc": 0.9, "mean/image_auroc": 0.9, "loss": 1.0}
    assert finished.data.metrics == charted
    assert finished.info.run_name == "all stages toyset: image AUROC 0.900"
    assert "mono" in finished.data.tags["mlflow.note.content"]
    assert "" not in finished.data.tags.values()
    assert finished.data.params["training.learning_rate"] == "0.2"
    assert finished.data.params["training.inner.size"] == "4"
    assert finished.data.tags["dataset"] == "toyset"
    names = {path.name for path in artifacts_of(history.project, finished).iterdir()}
    assert names == {"metrics.json", "report.html"}
    assert not list((history.project / "mlflow_unsent").iterdir())
    for shown in (finished.info.run_id, "data/report.html", "decodiff_pipeline.tracking.ui toyset"):
        assert shown in history.output


def test_a_failed_run_has_its_error(history: History) -> None:
    failed = runs_in(history.project)["training FAILED DataError"]
    assert failed.data.tags["error"] == "DataError: raw/x.png is empty; copy it again"
    assert failed.info.run_name == "training toyset: failed"


def test_a_long_outcome_fits_into_the_name_and_is_whole_in_the_description() -> None:
    line = {"name": "decodiff", "outcome": "rolled back", "from_version": "3", "to_version": "2"}
    told = run_content.outcome_tags(
        "rollback a", "FINISHED", {"rollback": line | {"reason": "r" * 300}}
    )
    assert told["mlflow.runName"].startswith("rollback a: version 2 is champion again")
    assert len(told["mlflow.runName"]) == 200
    assert told["mlflow.note.content"].endswith("r" * 300)


def test_the_stages_of_a_dvc_process_are_under_one_run(history: History) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{history.project / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("toyset").experiment_id])
    (parent,) = [run for run in runs if run.info.run_name == "dvc repro toyset"]
    assert parent.info.status == "FINISHED"
    children = [run for run in runs if run is not parent]
    under = {run.data.tags["mlflow.parentRunId"] for run in children}
    assert (len(children), under) == (4, {parent.info.run_id})


@pytest.mark.usefixtures("tables")
def test_a_check_that_fails_before_the_first_node_is_a_failure(
    project: Path, kedro: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    result = kedro("run", "--pipelines", "training", "--params", "training.fail=check")
    assert result.returncode == 1
    (run,) = runs_in(project).values()
    assert run.info.status == "FAILED"
    assert "no weights at raw/x" in run.data.tags["error"]


def test_figures_tables_and_the_digest_of_the_data(history: History) -> None:
    from mlflow.data import get_source

    run = runs_in(history.project)["retrain FINISHED"]
    digest = run.data.tags["data_digest"]
    assert re.fullmatch("[0-9a-f]{64}", digest)
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("toyset", digest[:36])
    assert [(tag.key, tag.value) for tag in data.tags] == [("mlflow.data.context", "training")]
    assert get_source(data.dataset).to_dict() == {"uri": "data/manifest.parquet"}
    profile = json.loads(data.dataset.profile)
    assert profile == {"num_rows": 1, "images": {"a": {"b": {"c": 1}}}}
    artifacts = artifacts_of(history.project, run)
    assert (artifacts / "figures" / "mono.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((artifacts / "table.json").read_text())["data"] == [["a"]]
    shown = json.loads(run.data.tags["mlflow.loggedArtifacts"])  # what MLflow's page reads
    assert shown == [{"path": "table.json", "type": "table"}]


def test_nothing_secret_is_in_a_run(history: History) -> None:
    run = runs_in(history.project)["training FAILED ValueError"]
    told = json.dumps(run.to_dictionary())
    for hidden in (SECRET, "hunter22", "abcdef", "key-0123456789"):
        assert hidden not in told
    assert run.data.params["training.storage"] == "s3://***@bucket/x?token=***"
    assert run.data.tags["error"] == "ValueError: https://***@host/?sig=*** and ***"
    assert run.data.tags["dvc_exp_name"] == "brisk-newt"
    assert run.data.tags["dvc_exp_baseline_rev"] == "0123abc"


def wait_for_content(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    "end",
    [signal.SIGTERM, signal.SIGINT, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)],
)
def test_a_run_that_is_stopped_is_killed_in_mlflow(
    project: Path, sessions: Sessions, end: signal.Signals
) -> None:
    process = sessions(("training", {"training": {"fail": "sleep"}}))
    wait_for_content(project / "sleeping", process)
    process.send_signal(end)
    while not (project / "unwound").exists() and process.poll() is None:
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):  # somebody in a hurry
        process.send_signal(end)
    output, _ = process.communicate(timeout=60)

    assert process.returncode != 0, output
    (run,) = runs_in(project).values()
    assert run.info.status == "KILLED"
    assert run.info.end_time is not None
    assert run.info.run_id == (project / "sleeping").read_text()  # nodes can find the run
    assert (project / "unwound").exists()  # and can stop what they started
    assert not list((project / "mlflow_unsent").iterdir())


@pytest.mark.usefixtures("tables")
def test_a_node_that_exits_leaves_no_run_behind(project: Path, sessions: Sessions) -> None:
    process = sessions(("training", {"training": {"fail": "exit"}}))
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0, output
    (run,) = runs_in(project).values()
    assert run.info.status == "KILLED"


@pytest.mark.slow
def test_runs_that_start_together_on_a_new_database(project: Path, sessions: Sessions) -> None:
    processes = [sessions(("training", {})) for _ in range(3)]
    outputs = [process.communicate(timeout=180)[0] for process in processes]
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("toyset")
    assert experiment is not None, outputs
    found = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in found] == ["FINISHED"] * 3, outputs
    assert [run.data.metrics["loss"] for run in found] == [1.0] * 3
    assert "MLflow at" not in "".join(outputs)  # the first word of every complaint


@pytest.mark.slow
def test_without_a_server_the_run_does_all_its_work(
    project: Path, sessions: Sessions, empty_database: Path
) -> None:
    process = sessions(
        ("__default__", {}),
        MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )
    output, _ = process.communicate(timeout=120)

    assert json.loads((project / "data" / "metrics.json").read_text())["categories"]
    assert (project / "data" / "report.html").exists()
    assert "__default__ raised" not in output
    assert "the run goes on" in output
    assert "did not get" in output
    assert not (project / "mlflow.db").exists()

    # The next run says so, and the command that it names brings it to another store.
    shutil.copy(empty_database, project / "mlflow.db")
    process = sessions(("training", {}))
    output, _ = process.communicate(timeout=120)
    assert "MLflow has not all of 1 earlier runs" in output
    command = [sys.executable, "-m", "decodiff_pipeline.tracking.upload_unsent"]
    uri = f"sqlite:///{project / 'mlflow.db'}"
    done = subprocess.run(
        [*command, "--tracking-uri", uri], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "is FINISHED" in done.stdout
    run = runs_in(project)["__default__ FINISHED"]
    assert run.data.params["training.learning_rate"] == "0.2"
    assert run.data.metrics["mono/image_auroc"] == 0.9
    artifacts = project / "mlartifacts" / run.info.run_id / "artifacts"
    assert {path.name for path in artifacts.iterdir()} == {"metrics.json", "report.html"}


def test_an_unknown_kind_of_metadata_stops_the_run_before_it_starts(tmp_path: Path) -> None:
    entry = {
        "type": "text.TextDataset",
        "filepath": str(tmp_path / "report.html"),
        "metadata": {"mlflow": "picture"},
    }
    catalog = DataCatalog.from_config({"report": entry})
    pipeline = Pipeline([Node(lambda: "<p>", None, "report", name="write")])
    with pytest.raises(ConfigurationError, match=r"'report' has metadata.mlflow: 'picture'"):
        TrackingHooks().before_pipeline_run({"pipeline_names": ["training"]}, pipeline, catalog)


def test_system_metrics_reach_the_run(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("default")
    assert experiment is not None
    run_id = client.create_run(experiment.experiment_id).info.run_id
    tracker: Any = SimpleNamespace(run_id=run_id, tracking_uri=store)
    metrics = SystemMetrics(tracker)
    metrics.start()
    until = time.monotonic() + 60
    while not client.get_run(run_id).data.metrics and time.monotonic() < until:
        time.sleep(0.5)
    metrics.stop()
    assert client.get_run(run_id).data.metrics["system/system_memory_usage_megabytes"] > 0
