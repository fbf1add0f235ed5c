"""A version in the registry: what it holds, that it answers, and when none is added."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.deco.digests import folder_sha256, sha256_of
from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.registry import registration
from decodiff_pipeline.tracking.mlflow_values import artifact_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlflow import MlflowClient

    Register = Callable[..., dict[str, Any]]

METRICS = {
    "dataset": "elpv",
    "categories": {"mono": {"image_auroc": 0.9, "pixel_ap": None}},
    "mean": {"image_auroc": 0.9},
}
OTHER_THRESHOLDS = {"categories": {"mono": {"threshold": 0.06}}}
REFERENCE = {"model": {}, "categories": {"mono": {"values": {"score": [0.1, 0.2]}}}}


def test_a_version_knows_what_it_is_and_answers(
    register: Register, tiny_model: Path, png: bytes, client: MlflowClient, tmp_path: Path
) -> None:
    import mlflow

    result = register(metrics=METRICS, reference=REFERENCE)
    version = client.get_model_version_by_alias("decodiff", "challenger")
    assert (result["version"], result["new"], str(version.version)) == ("1", True, "1")
    assert version.tags["model_sha256"] == folder_sha256(tiny_model) == result["sha256"]
    assert {
        "data_digest", "autoencoder_digest", "thresholds_sha256", "serving_config",
        "served_model_sha256", "monitoring_reference",
    } <= set(version.tags)  # fmt: skip

    kept = {file.path for file in client.list_artifacts(version.run_id)}
    assert {"metrics.json", "evaluation_record.parquet"} <= kept  # to compare later models with
    logged = client.get_logged_model(result["model_id"])
    assert {m.key: m.value for m in logged.metrics} == {
        "mono/image_auroc": 0.9,
        "mean/image_auroc": 0.9,
    }
    assert logged.source_run_id == result["run_id"]

    model = mlflow.pyfunc.load_model("models:/decodiff@challenger")
    assert [column.name for column in model.metadata.signature.inputs] == ["image", "category"]
    assert model.input_example["category"].tolist() == ["mono"]
    rows = pd.DataFrame({"image": [png, png], "category": ["mono", "poly"]})
    answer = model.predict(rows)
    assert answer["category"].tolist() == ["mono", "poly"]
    assert answer["threshold"].tolist() == [0.05, None]
    assert all(0 <= score <= 1 for score in answer["score"])
    grey = Image.open(io.BytesIO(base64.b64decode(answer["map"][0])))
    assert grey.size == (60, 50)
    with pytest.raises(mlflow.MlflowException, match="unknown category 'wood'") as caught:
        model.predict(pd.DataFrame({"image": [png], "category": ["wood"]}))
    assert caught.value.error_code == "BAD_REQUEST"

    logged_files = {path.name for path in (tmp_path / "mlartifacts").rglob("*.*")}
    assert {"model_index.json", "monitoring_reference.json"} <= logged_files
    assert not [name for name in logged_files if name.endswith((".pkl", ".pt", ".bin"))]


def test_the_same_model_gets_no_second_version(register: Register, client: MlflowClient) -> None:
    first, second = register(metrics=METRICS), register(metrics=METRICS)
    assert (second["version"], second["new"]) == (first["version"], False)
    assert second["run_id"] != first["run_id"]
    linked = client.get_logged_model(first["model_id"]).metrics
    assert {metric.run_id for metric in linked} == {first["run_id"], second["run_id"]}

    other = register(thresholds=OTHER_THRESHOLDS)
    assert (other["version"], other["new"]) == ("2", True)


def test_a_version_is_tagged_with_what_made_it(
    register: Register, tiny_model: Path, client: MlflowClient
) -> None:
    made = {
        "model_sha256": folder_sha256(tiny_model),
        "git_commit": "c0ffee",
        "git_dirty": True,
        "parameter_overrides": "training.steps",
        "parameters": {"training": {"steps": 150}},
    }
    now = {"git_commit": "decaf", "git_dirty": False, "dvc_revision": "of another run",
           "parameter_overrides": "registration.batch_size"}  # fmt: skip
    result = register(model_record=made, provenance=now)
    tags = client.get_model_version("decodiff", "1").tags
    assert (tags["git_commit"], tags["git_dirty"]) == ("c0ffee", "True")
    assert tags["parameter_overrides"] == "registration.batch_size, training.steps"
    assert tags["parameters_sha256"] == sha256_of(made["parameters"])
    assert "dvc_revision" not in tags
    assert json.loads(artifact_bytes(result["run_id"], "parameters.json")) == made["parameters"]

    other = register(
        model_record={**made, "model_sha256": "of another model"}, thresholds=OTHER_THRESHOLDS
    )
    assert not {"git_commit", "parameters_sha256", "parameter_overrides"} & set(other["tags"])


def test_a_run_that_is_going_on_keeps_running_and_its_experiment_gets_the_model(
    register: Register, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = client.create_experiment("elpv", (tmp_path / "elpv").as_uri())
    run = client.create_run(experiment)
    # As in a project whose `Default` was deleted; without a name, MLflow takes `Default`.
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    client.delete_experiment("0")
    result = register(provenance={"mlflow_run_id": run.info.run_id})
    assert result["run_id"] == run.info.run_id
    assert client.get_run(run.info.run_id).info.status == "RUNNING"
    logged = client.get_logged_model(result["model_id"])
    assert logged.experiment_id == experiment
    assert logged.artifact_location.startswith((tmp_path / "elpv").as_uri())
    (found,) = client.search_logged_models([experiment])
    assert (found.model_id, str(found.status)) == (result["model_id"], "READY")


def test_a_model_that_does_not_answer_is_not_registered(
    register: Register, tiny_model: Path, tmp_path: Path, client: MlflowClient
) -> None:
    broken = tmp_path / "pipeline"
    shutil.copytree(tiny_model, broken)
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"does not answer .* nothing was registered"):
        register(model_folder=broken)
    assert client.search_registered_models() == []


def test_what_the_store_changed_is_not_registered(
    register: Register, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    download = mlflow.artifacts.download_artifacts

    def flip(uri: str) -> str:
        folder = download(uri)
        with open(f"{folder}/artifacts/pipeline/model_index.json", "a") as file:
            file.write(" ")
        return folder

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", flip)
    with pytest.raises(ModelError, match="differs from"):
        register()
    assert client.search_registered_models() == []


def test_without_mlflow_the_model_is_safe_and_the_sentence_says_where(
    register: Register, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://user:s3cret@word-too@127.0.0.1:9")
    with pytest.raises(ModelError, match="kedro run --pipelines registration") as caught:
        register()
    assert str(tiny_model) in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "word-too" not in str(caught.value)


def test_a_registration_that_was_cut_off_is_completed_by_the_next(
    register: Register, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException

    def away(*_: object) -> None:
        raise MlflowException("timed out")

    with monkeypatch.context() as outage:
        outage.setattr(mlflow.MlflowClient, "set_registered_model_alias", away)
        with pytest.raises(ModelError, match="timed out"):
            register()
    done = register()
    assert (done["version"], done["new"], done["alias"]) == ("1", False, "challenger")
    assert client.get_registered_model(done["name"]).aliases == {"challenger": 1}
    first_run = client.get_model_version(done["name"], "1").run_id
    kept = {found.path for found in client.list_artifacts(first_run)}
    assert {"metrics.json", "evaluation_record.parquet"} <= kept


def test_variables_of_a_server_do_not_decide_what_is_registered(
    register: Register, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thresholds.json").write_text('{"another line": 0.5}')
    monkeypatch.setenv("DECODIFF_THRESHOLDS", str(tmp_path / "thresholds.json"))
    monkeypatch.setenv("DECODIFF_REQUEST_LOG", str(tmp_path / "log"))
    assert register()["version"] == "1"
    assert not (tmp_path / "log").exists()
    assert os.environ["DECODIFF_REQUEST_LOG"]


def test_the_example_is_a_small_test_image(raw: Path, make) -> None:
    make.image(raw / "poly" / "b.png", seed=2, size=(900, 700), mode="RGB")
    rows = [
        {"category": "mono", "split": "train", "path": "mono/a.png"},
        {"category": "poly", "split": "test", "path": "poly/b.png"},
    ]
    image, category = registration.example_of(pd.DataFrame(rows), ImageFolder(raw))
    assert category == "poly"
    decoded = Image.open(io.BytesIO(image))
    assert (max(decoded.size), decoded.format) == (512, "PNG")
    assert np.asarray(decoded).any()
