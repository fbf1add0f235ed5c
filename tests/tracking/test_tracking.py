"""A run in MLflow, and what happens when MLflow is not there."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from decodiff_pipeline.tracking.mlflow_values import flatten, numbers_in
from decodiff_pipeline.tracking.redaction import redact
from decodiff_pipeline.tracking.tracker import Tracker

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient
    from tests.tracking.conftest import Outage


def tracker(uri: str, folder: Path, **tags: str) -> Tracker:
    return Tracker(uri, "elpv", run_name="training", tags=tags, unsent=folder / "unsent").start()


def test_everything_logged_is_in_the_run(store: str, client: MlflowClient, tmp_path: Path) -> None:
    run = tracker(store, tmp_path / "artifacts", pipeline="training")
    run.log_params({"training": {"learning_rate": 1e-4, "betas": [0.9, 0.99], "note": None}})
    run.log_metrics({"categories": {"mono": {"image_auroc": 0.9, "pixel_ap": None}}}, "metrics")
    run.log_history([{"step": 5, "loss": 0.5}, {"step": 10, "loss": 0.25}], "training_log")
    (tmp_path / "report.html").write_text("<p>")
    run.log_artifact(tmp_path / "report.html", "report")
    run.finish("FINISHED")

    found = client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.tags["pipeline"] == "training"
    assert found.data.params == {
        "training.learning_rate": "0.0001",
        "training.betas": "[0.9, 0.99]",
        "training.note": "null",
    }
    assert found.data.metrics == {"mono/image_auroc": 0.9, "loss": 0.25}
    history = client.get_metric_history(run.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(5, 0.5), (10, 0.25)]
    assert [file.path for file in client.list_artifacts(run.run_id)] == ["report.html"]
    assert (tmp_path / "mlartifacts" / run.run_id / "artifacts" / "report.html").exists()


def test_more_and_longer_values_than_mlflow_takes_at_once(
    store: str, client: MlflowClient, tmp_path: Path
) -> None:
    run = tracker(store, tmp_path, note="x" * 9000)
    run.log_params({"many": {f"p{i}": i for i in range(250)}, "long": "y" * 9000})
    run.log_metrics({"odd name (µ)!": 1, "flag": True, "bad": float("nan")}, "metrics")
    run.log_history([{"step": i, "loss": i} for i in range(1500)], "training_log")
    run.finish("FINISHED")

    found = client.get_run(run.run_id)
    assert len(found.data.params) == 251
    assert found.data.params["long"].startswith("yyy")
    assert found.data.metrics == {"odd name _µ__": 1, "loss": 1499}
    assert len(client.get_metric_history(run.run_id, "loss")) == 1500


def test_a_dead_server_costs_two_warnings_and_no_exception(
    dead_server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="decodiff_pipeline")
    run = tracker(dead_server, tmp_path)
    run.log_params({"a": 1})
    run.log_history([{"step": 1, "loss": 1.0}], "training_log")
    (tmp_path / "report.html").write_text("a report")
    run.log_artifact(tmp_path / "report.html", "report")
    run.log_artifact(tmp_path / "figures", "what there is none of")
    run.log_table([{"category": "mono"}], tmp_path / "scores.csv")
    run.finish("FINISHED")

    assert run.run_id is None
    start, end = [r.getMessage() for r in caplog.records if r.name.startswith("decodiff_pipeline")]
    assert "the run goes on" in start
    named = ("the run itself", "parameters", "training_log", "report", "FINISHED")
    for unsent in (*named, "table scores.json"):
        assert unsent in end
    assert "hunter22" not in caplog.text


def test_what_a_server_missed_is_sent_when_it_is_back(
    store: str, client: MlflowClient, tmp_path: Path, outage: Outage
) -> None:
    run = tracker(store, tmp_path)
    run.log_history([{"step": 1, "loss": 1.0}], "training_log")
    with outage("log_batch"):
        run.log_history([{"step": 2, "loss": 0.5}], "training_log")
    run.log_history([{"step": 3, "loss": 0.25}], "training_log")
    run.finish("FINISHED")

    steps = [point.step for point in client.get_metric_history(run.run_id, "loss")]
    assert steps == [1, 2, 3]
    assert client.get_run(run.run_id).info.status == "FINISHED"


def test_a_value_mlflow_refuses_loses_only_itself(
    store: str, client: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tracker(store, tmp_path)
    run.log_params({"a": 1})
    run.log_params({"a": 2})  # MLflow's parameters cannot be changed
    run.log_metrics({"loss": 1}, "metrics")
    run.finish("FINISHED")

    found = client.get_run(run.run_id)
    assert "refused parameters" in caplog.text
    assert found.data.params == {"a": "1"}
    assert found.data.metrics == {"loss": 1}


def test_a_file_that_a_proxy_never_takes_holds_up_nothing_else(
    store: str,
    client: MlflowClient,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow
    import requests

    def too_large(*_: object) -> None:
        response = requests.Response()
        response.status_code = 413
        raise requests.HTTPError("413 Request Entity Too Large", response=response)

    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", too_large)
    (tmp_path / "report.html").write_text("large")
    run = tracker(store, tmp_path)
    run.log_artifact(tmp_path / "report.html", "report")
    run.log_metrics({"loss": 1}, "metrics")
    run.finish("FINISHED")
    assert "MLflow refused report" in caplog.text
    assert client.get_run(run.run_id).data.metrics == {"loss": 1}


def test_a_deleted_experiment_says_how_to_restore_it(
    store: str, client: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client.delete_experiment(client.create_experiment("elpv"))
    run = tracker(store, tmp_path)
    run.finish("FINISHED")
    assert "mlflow experiments restore" in caplog.text


def test_ending_twice_keeps_the_first_status(
    store: str, client: MlflowClient, tmp_path: Path
) -> None:
    run = tracker(store, tmp_path)
    run.finish("FAILED", tags={"error": "DataError: no images"})
    run.finish("KILLED")
    found = client.get_run(run.run_id)
    assert found.info.status == "FAILED"
    assert found.data.tags["error"] == "DataError: no images"


def test_names_of_metrics() -> None:
    tree = json.loads(
        '{"protocol": "strict", "categories": {"mono": {"n_good": 3}}, "mean": {"image_ap": 0.5},'
        ' "baseline": {"pca": {"mono": {"image_ap": null}}}}'
    )
    assert numbers_in(tree) == {"mono/n_good": 3.0, "mean/image_ap": 0.5}
    released = numbers_in(tree | {"protocol": "released"})
    assert released == {"released/mono/n_good": 3.0, "released/mean/image_ap": 0.5}
    native = numbers_in(tree | {"protocol": "released", "resolution": "native"})
    assert set(native) == {"released/native/mono/n_good", "released/native/mean/image_ap"}


def test_a_data_set_with_many_categories_does_not_flood_mlflow() -> None:
    row = {
        "image_auroc": 0.9,
        "intervals": {"image_auroc": [0.8, 0.95], "pixel_ap": None},
        "confusion": {"tp": 1, "fp": 2},
        "defect_types": {"crack": {"n": 3, "image_auroc": 0.9}},
        "leakage": {"n_good": 1, "without": {"image_auroc": 0.9}},
        "synthetic": {"pixel_ap": 0.5},
        "uncertain": {"p33": {"n": 3}},
    }
    spread = {"mono": {"image_auroc": {"n": 3, "mean": 0.9}}}
    assert numbers_in({"categories": {"mono": row}, "mean": row, "seeds": spread}) == {
        f"{name}/{key}": value
        for name in ("mono", "mean")
        for key, value in {
            "image_auroc": 0.9,
            "image_auroc_low": 0.8,
            "image_auroc_high": 0.95,
            "synthetic/pixel_ap": 0.5,
        }.items()
    }


def test_tables_are_artifacts_that_the_page_shows(
    store: str, client: MlflowClient, tmp_path: Path
) -> None:
    run = tracker(store, tmp_path / "artifacts")
    run.log_table([{"category": "mono", "image_ap": None}], tmp_path / "table.csv")
    run.log_table([{"category": "poly"}], tmp_path / "scores.csv")
    run.finish("FINISHED")

    found = client.get_run(run.run_id)
    assert {f.path for f in client.list_artifacts(run.run_id)} == {"table.json", "scores.json"}
    shown = json.loads(found.data.tags["mlflow.loggedArtifacts"])
    assert [table["path"] for table in shown] == ["table.json", "scores.json"]
    table = client.load_table(str(run.experiment_id), "table.json", [str(run.run_id)])
    assert table["category"].tolist() == ["mono"]


def test_flatten_cuts_keys_to_what_mlflow_takes() -> None:
    (key,) = flatten({"a" * 200: {"b" * 200: 1}}, ".")
    assert len(key) == 250


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:pw@mlflow.example/x", "https://***@mlflow.example/x"),
        ("http://me:p@ss@word@host:5000/x failed", "http://***@host:5000/x failed"),
        ("sqlite:////srv/project/mlflow.db", "sqlite:////srv/project/mlflow.db"),
        ("GET /x?page=2&api_token=abc failed", "GET /x?page=2&api_token=*** failed"),
        ("cannot log in with top-secret-9", "cannot log in with ***"),
    ],
)
def test_passwords_are_not_shown(uri: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_PASSWORD", "top-secret-9")
    monkeypatch.setenv("PWD", "/srv/project")  # is not a password
    assert redact(uri) == shown
