"""The whole chain as a user runs it: ``kedro run`` on a small tree of real image files."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
import yaml

if TYPE_CHECKING:
    from types import SimpleNamespace

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PARAMETERS = {
    "data": {"layout": "mvtec", "categories": None, "seed": 0},
    "preprocessing": {"resize": 64, "image_size": 64},
    "latent_cache": {"views": 2, "batch_size": 8},
    "training": {
        "preset": "nano", "steps": 4, "batch_size": 8, "standardise_latents": True,
        "checkpoint_every": 2, "log_every": 2, "validate_every": 2, "progress_bar": False,
    },
}  # fmt: skip


def kedro(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a project, with the project's own MLflow store."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return subprocess.run(
        [sys.executable, "-m", "kedro", *arguments],
        cwd=project,
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        env={**mine, "DO_NOT_TRACK": "true", "COLUMNS": "400", "OMP_NUM_THREADS": "1"},
    )


def new_project(folder: Path) -> Path:
    """A project with the real base configuration and a small environment ``bolts``."""
    shutil.copytree(ROOT / "conf" / "base", folder / "conf" / "base")
    shutil.copy(ROOT / "conf" / "logging.yml", folder / "conf")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "src").mkdir()
    environment = folder / "conf" / "bolts"
    environment.mkdir()
    (environment / "globals.yml").write_text("dataset: bolts\n")
    (environment / "parameters.yml").write_text(yaml.safe_dump(PARAMETERS))
    return folder


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, make: SimpleNamespace) -> Path:
    """A project in which ``kedro run`` has just finished: with masks, without, without defects."""
    project = new_project(tmp_path_factory.mktemp("project"))
    raw = project / "data" / "01_raw" / "bolts"
    make.category(raw, "bolt", train=32, seed=0)
    shutil.rmtree(make.category(raw, "nut", train=32, seed=1) / "ground_truth")
    shutil.rmtree(make.category(raw, "plate", train=32, seed=2) / "ground_truth")
    shutil.rmtree(raw / "plate" / "test" / "scratch")
    result = kedro(project, "run", "--env", "bolts")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return project


def test_metrics_say_what_can_be_measured_and_null_for_the_rest(ran: Path) -> None:
    metrics = json.loads((ran / "data/08_reporting/bolts/metrics.json").read_text())
    bolt, nut, plate = (metrics["categories"][name] for name in ("bolt", "nut", "plate"))
    assert 0 <= bolt["image_auroc"] <= 1
    assert 0 <= bolt["pixel_aupro"] <= 1
    assert 0 <= nut["image_auroc"] <= 1
    assert nut["pixel_auroc"] is None
    assert plate["image_auroc"] is None
    assert (plate["n_good"], plate["n_defective"]) == (4, 0)
    assert metrics["protocol"] == "strict"
    assert set(metrics["baseline"]["pca"]) == {"bolt", "nut", "plate"}
    assert metrics["mean"]["image_auroc"] == pytest.approx(
        (bolt["image_auroc"] + nut["image_auroc"]) / 2
    )


def test_the_version_in_the_registry_is_the_model_on_disk(ran: Path) -> None:
    from mlflow.tracking import MlflowClient

    registration = json.loads((ran / "data/08_reporting/bolts/registration.json").read_text())
    uri = f"sqlite:///{ran / 'mlflow.db'}"
    client = MlflowClient(uri, registry_uri=uri)
    version = client.get_model_version(registration["name"], str(registration["version"]))
    assert version.tags["model_sha256"] == registration["sha256"]
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert "bolt/image_auroc" in " ".join(run.data.metrics)
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [point.step for point in history] == [2, 4]


def test_reports_and_figures_are_self_contained(ran: Path) -> None:
    folder = ran / "data/08_reporting/bolts"
    for name in ("report.html", "validation.html"):
        page = (folder / name).read_text()
        assert "http://" not in page.replace("http://www.w3.org", "")
        assert "<script src" not in page
    assert len(list((folder / "figures").glob("*.png"))) == 3


def test_each_stage_runs_alone_and_finds_its_work_done(ran: Path) -> None:
    result = kedro(ran, "run", "--env", "bolts", "--pipelines", "latent_caching")
    assert result.returncode == 0, result.stderr
    assert " 0 of them are not cached yet" in result.stdout + result.stderr
    result = kedro(ran, "run", "--env", "bolts", "--pipelines", "training")
    assert result.returncode == 0, result.stderr
    assert "resuming at step 4 of 4" in result.stdout + result.stderr


def test_validated_images_are_those_that_were_trained_on(ran: Path) -> None:
    manifest = pd.read_parquet(ran / "data/03_primary/bolts/manifest.parquet")
    good = manifest[(manifest["split"] == "train") & (manifest["label"] == "good")]
    summary = json.loads((ran / "data/08_reporting/bolts/training.json").read_text())
    assert summary["images"] == len(good)


def test_a_killed_training_goes_on_where_it_was(ran: Path) -> None:
    command = ["run", "--env", "bolts", "--pipelines", "training", "--params", "training.steps=40"]
    checkpoints = ran / "data/06_models/bolts/checkpoints"
    with subprocess.Popen(
        [sys.executable, "-m", "kedro", *command],
        cwd=ran,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "DO_NOT_TRACK": "true"},
    ) as training:
        deadline = time.monotonic() + 300
        while not list(checkpoints.glob("checkpoint-*[68].json")) and time.monotonic() < deadline:
            assert training.poll() is None
            time.sleep(0.02)
        training.send_signal(signal.SIGKILL)
    result = kedro(ran, *command)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    resumed = re.search(r"resuming at step (\d+) of 40", output)
    assert resumed is not None
    assert 4 < int(resumed[1]) < 40
    log = json.loads((ran / "data/08_reporting/bolts/training_log.json").read_text())
    assert [row["step"] for row in log] == list(range(2, 41, 2))


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        ("training.stepz=3", "training.stepz"),
        ("training.batch_size=many", "training.batch_size"),
        ("preprocessing.image_size=100", "preprocessing.image_size is 100"),
        ("preprocessing.fit=tiles", "preprocessing.fit"),
        (
            "preprocessing.fit=tile,scoring.discrepancy.normalisation=position",
            "with preprocessing.fit 'tile'",
        ),
        ("data.categories=[screw]", "screw"),
        ("autoencoder.source=no/such-weights", "autoencoder.source 'no/such-weights'"),
        ("training.init_from=champoin", "init_from is champoin, where there is nothing"),
    ],
)
def test_a_wrong_parameter_is_named_before_any_work(
    ran: Path, parameter: str, expected: str
) -> None:
    before = (ran / "data/03_primary/bolts/manifest.parquet").stat().st_mtime_ns
    result = kedro(ran, "run", "--env", "bolts", "--pipelines", "train", "--params", parameter)
    output = result.stdout + result.stderr
    assert result.returncode != 0
    assert expected in output
    assert "Traceback" not in output
    assert (ran / "data/03_primary/bolts/manifest.parquet").stat().st_mtime_ns == before


def test_missing_data_say_what_to_put_where(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    result = kedro(project, "run", "--env", "bolts")
    output = result.stdout + result.stderr
    assert result.returncode != 0
    assert "data/01_raw/bolts" in output
    assert "train/good" in output
    assert "Traceback" not in output


def test_a_category_is_added_to_the_champion_and_then_nothing_is_left_to_train(
    ran: Path, make: SimpleNamespace
) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{ran / 'mlflow.db'}"
    client = MlflowClient(uri, registry_uri=uri)
    client.set_registered_model_alias("decodiff-bolts", "champion", "1")
    make.category(ran / "data" / "01_raw" / "bolts", "anchor", train=32, seed=3)
    command = ["run", "--env", "bolts", "--params", "training.init_from=champion", "--pipelines"]
    result = kedro(ran, *command, "train")
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-3000:]
    assert "starts from version 1 of decodiff-bolts, the champion" in output
    assert "category_embedding.weight[anchor]" in output
    summary = json.loads((ran / "data/08_reporting/bolts/training.json").read_text())
    assert (summary["start"]["kind"], summary["start"]["version"]) == ("champion", "1")
    model = json.loads((ran / "data/06_models/bolts/pipeline/unet/config.json").read_text())
    assert model["categories"] == ["anchor", "bolt", "nut", "plate"]
    result = kedro(ran, *command, "training")
    assert result.returncode == 0, result.stderr
    assert "finished, there is nothing left to train" in result.stdout + result.stderr
