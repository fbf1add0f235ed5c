"""What a run could not send is in MLflow after one command, once and as it was."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from decodiff_pipeline.errors import TrackingError
from decodiff_pipeline.hooks.run_content import describe_manifest
from decodiff_pipeline.tracking import journal as journal_module
from decodiff_pipeline.tracking.journal import journals
from decodiff_pipeline.tracking.tracker import Tracker
from decodiff_pipeline.tracking.upload_unsent import main, upload

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from tests.tracking.conftest import Outage


def begin(uri: str, folder: Path, **tags: str) -> Tracker:
    return Tracker(uri, "elpv", run_name="training", tags=tags, unsent=folder / "unsent").start()


def only_run(client: MlflowClient) -> Run:
    (run,) = client.search_runs([client.get_experiment_by_name("elpv").experiment_id])
    return run


def log_all(run: Tracker, folder: Path, manifest: pd.DataFrame) -> None:
    run.log_params({"training": {"learning_rate": 0.5, "api_key": "0123456789"}})
    run.log_history([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}], "training_log")
    (folder / "figures").mkdir(exist_ok=True)
    (folder / "figures" / "mono.png").write_text("this run's")
    run.log_artifact(folder / "figures", "figures")
    run.log_table([{"category": "mono"}], folder / "scores.csv")
    path = folder / "manifest.parquet"
    run.log_data(
        lambda: describe_manifest(
            manifest, name="elpv", path=path, project=folder, context="training"
        )
    )


def waiting(folder: Path) -> Path:
    (path,) = journals(folder / "unsent")
    return path


def test_a_run_without_a_server_is_complete_after_the_upload(
    dead_server: str, store: str, client: MlflowClient, tmp_path: Path, manifest: pd.DataFrame,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = begin(dead_server, tmp_path, pipeline="training")
    log_all(run, tmp_path, manifest)
    run.finish("FAILED", tags={"error": "ValueError: a bug"})
    (tmp_path / "figures" / "mono.png").write_text("of the next run")
    text = waiting(tmp_path).read_text()
    assert "hunter22" not in text
    assert "0123456789" not in text

    with pytest.raises(SystemExit) as end:
        main([str(tmp_path / "unsent"), "--tracking-uri", store])
    assert end.value.code == 0
    assert "is FAILED" in capsys.readouterr().out
    found = only_run(client)
    assert found.info.status == "FAILED"
    assert found.info.start_time < found.info.end_time
    assert found.data.tags["error"] == "ValueError: a bug"
    assert found.data.params == {"training.learning_rate": "0.5", "training.api_key": "***"}
    history = client.get_metric_history(found.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.0)]
    artifacts = tmp_path / "mlartifacts" / found.info.run_id / "artifacts"
    assert (artifacts / "figures" / "mono.png").read_text() == "this run's"
    assert json.loads((artifacts / "scores.json").read_text())["data"] == [["mono"]]
    (data,) = found.inputs.dataset_inputs
    assert (data.dataset.name, data.tags[0].value) == ("elpv", "training")
    assert json.loads(data.dataset.source) == {"uri": "manifest.parquet"}
    assert json.loads(data.dataset.profile)["images"] == {"mono": {"test": {"good": 1}}}
    assert not list((tmp_path / "unsent").iterdir())


def test_an_upload_that_is_cut_off_is_taken_up_without_doubles(
    dead_server: str, store: str, client: MlflowClient, tmp_path: Path, manifest: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import mlflow

    run = begin(dead_server, tmp_path)
    log_all(run, tmp_path, manifest)
    run.finish("FINISHED")
    for method in ("create_run", "log_batch", "log_artifacts"):
        with monkeypatch.context() as cut:
            real = getattr(mlflow.MlflowClient, method)

            def done_but_not_heard(*args: object, real=real, **options: object) -> None:
                real(*args, **options)
                raise KeyboardInterrupt

            cut.setattr(mlflow.MlflowClient, method, done_but_not_heard)
            with pytest.raises(KeyboardInterrupt):
                upload(waiting(tmp_path), store)
    upload(waiting(tmp_path), store)

    found = only_run(client)
    assert found.info.status == "FINISHED"
    assert len(client.get_metric_history(found.info.run_id, "loss")) == 2
    assert len(found.inputs.dataset_inputs) == 1


def test_a_run_that_lost_its_server_half_way_is_continued(
    store: str, client: MlflowClient, tmp_path: Path, outage: Outage
) -> None:
    run = begin(store, tmp_path)
    run.log_history([{"step": 1, "loss": 2.0}], "training_log")
    with outage("log_batch", "set_terminated"):
        run.log_history([{"step": 2, "loss": 1.0}], "training_log")
        run.finish("FINISHED")
    assert client.get_run(str(run.run_id)).info.status == "RUNNING"
    upload(waiting(tmp_path))
    assert client.get_run(str(run.run_id)).info.status == "FINISHED"
    assert [p.step for p in client.get_metric_history(str(run.run_id), "loss")] == [1, 2]


KILLED = """
import sys, time
from pathlib import Path
from decodiff_pipeline.tracking.tracker import Tracker
folder = Path(sys.argv[2])
run = Tracker(sys.argv[1], "elpv", run_name="training", tags={},
              unsent=folder / "unsent").start()
run.log_history([{"step": 1, "loss": 2.0}], "training_log")
(folder / "ready").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("away", [False, True])
def test_a_run_that_is_killed_with_9_becomes_killed_in_mlflow(
    away: bool, dead_server: str, store: str, client: MlflowClient, tmp_path: Path
) -> None:
    uri = dead_server if away else store
    process = subprocess.Popen([sys.executable, "-c", KILLED, uri, str(tmp_path)])
    deadline = time.monotonic() + 120
    while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.1)
    with pytest.raises(BlockingIOError):  # it goes on
        upload(waiting(tmp_path), store)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with waiting(tmp_path).open("ab") as file:
        file.write(b'{"number": 1, "kind": "met')  # a power cut in the middle of a line
    upload(waiting(tmp_path), store)
    found = only_run(client)
    assert found.info.status == "KILLED"
    assert found.data.metrics == {"loss": 2.0}
    assert "last sign of life" in found.data.tags["error"]


def test_what_cannot_be_sent_says_why_and_stays(
    dead_server: str, store: str, client: MlflowClient, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for _ in range(3):
        run = begin(dead_server, tmp_path)
        run.log_params({"a": 1})
        run.finish("FINISHED")
    damaged, deleted, good = journals(tmp_path / "unsent")
    lines = damaged.read_text().splitlines()
    damaged.write_text("\n".join([lines[0], "{oops", *lines[1:], ""]))
    gone = client.create_run("0").info.run_id
    client.delete_run(gone)
    with deleted.open("a") as file:
        file.write(json.dumps({"created": gone, "experiment_id": "0"}) + "\n")

    with pytest.raises(TrackingError, match="does not take 2 records"):
        upload(good, dead_server)
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path / "unsent"), "--tracking-uri", store])
    assert end.value.code == 1
    out, err = capsys.readouterr()
    assert f"line 2 of {damaged} is damaged" in err
    assert f"run {gone} was deleted in MLflow" in err
    assert out.count("is FINISHED") == 1
    assert {damaged, deleted} == set(journals(tmp_path / "unsent"))


def test_a_password_that_is_not_kept_is_asked_for(dead_server: str, tmp_path: Path) -> None:
    begin(dead_server, tmp_path).finish("FINISHED")
    with pytest.raises(TrackingError, match="set MLFLOW_TRACKING_URI"):
        upload(waiting(tmp_path))


def test_of_a_large_file_only_its_place_is_kept(
    dead_server: str, store: str, client: MlflowClient, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(journal_module, "LARGEST_COPY", 3)
    run = begin(dead_server, tmp_path)
    for name in ("same.txt", "changed.txt"):
        (tmp_path / name).write_text("large")
        run.log_artifact(tmp_path / name, name)
    run.finish("FINISHED")
    (tmp_path / "changed.txt").write_text("another")
    upload(waiting(tmp_path), store)
    found = only_run(client)
    assert [file.path for file in client.list_artifacts(found.info.run_id)] == ["same.txt"]
    assert "changed.txt" in caplog.text


def test_a_full_disk_does_not_stop_a_run(
    store: str, client: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "unsent").touch()  # a file where the folder should be
    run = begin(store, tmp_path)
    run.log_params({"a": 1})
    run.finish("FINISHED")
    assert "cannot be written" in caplog.text
    assert client.get_run(str(run.run_id)).data.params == {"a": "1"}
