"""DVC experiments as docs/experiments.md has them: parameters, queue, table, links to MLflow."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import SimpleNamespace

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TRAINING = "conf/base/parameters_training.yml"
EVALUATION = "conf/base/parameters_evaluation.yml"
RUN = "data/08_reporting/bolts/evaluation_run.json"
PARAMETERS = {
    "conf/base/globals.yml": "dataset: bolts\n",
    "conf/base/parameters_data.yml": "data:\n  layout: mvtec\n",
    "conf/base/parameters_caching.yml": """\
preprocessing: {resize: 64, image_size: 64}
autoencoder: {source: embedded}
latent_cache: {views: 1, synthetic_defects: 0, batch_size: 8}
""",
    TRAINING: """\
training:
  preset: nano
  steps: 2
  batch_size: 8
  learning_rate: 0.001 # of AdamW
  init_from: null
  progress_bar: false
scoring: {num_inference_steps: 2, fit: none}
""",
    EVALUATION: """\
evaluation:
  false_positive_rate: 0.05 # of good images
  num_inference_steps: null
  resamples: 100
  review_images: 0
  synthetic_images: 0
""",
}


def run(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command as in a shell with the environment activated; `dvc` and `kedro` are on it."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_", "GIT_"))}
    mine |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": "src",  # the project's own, or that of DVC's copy of it
        "DO_NOT_TRACK": "true",
        "DVC_NO_ANALYTICS": "1",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        command, cwd=project, env=mine, check=False, capture_output=True, text=True, timeout=900
    )


def done(project: Path, *command: str) -> str:
    """The output of a command that has to succeed."""
    result = run(project, *command)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-5000:]
    return output


def commit(project: Path, message: str) -> None:
    """Commits everything that Git does not ignore."""
    done(project, "git", "add", "--all")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    done(project, "git", *identity, "commit", "--quiet", "-m", message)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, make: SimpleNamespace) -> Path:
    """This project with a small data set, trained and recorded in DVC and Git."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("src", "conf/base", ".dvc/plots"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("conf/logging.yml", ".dvc/config", ".gitignore", ".dvcignore", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "conf" / "local").mkdir()
    (folder / "conf" / "local" / ".gitkeep").touch()
    for name, text in PARAMETERS.items():
        (folder / name).write_text(text)
    make.category(folder / "data" / "01_raw" / "bolts", "bolt", train=32)
    done(folder, "git", "init", "--quiet")
    done(folder, sys.executable, "-m", "decodiff_pipeline.dvc_stages")
    done(folder, "dvc", "add", "--quiet", "data/01_raw/bolts")
    done(folder, "kedro", "run", "--pipelines", "train")
    stages = ("data_validation", "latent_caching", "training")
    done(folder, "dvc", "commit", "--quiet", "--force", *stages)
    commit(folder, "Baseline")
    return folder


@pytest.fixture
def clean(project: Path) -> Path:
    """The project as it was committed."""
    done(project, "git", "restore", ".")
    done(project, "git", "clean", "--quiet", "-d", "--force", "data")
    done(project, "dvc", "checkout", "--quiet", "data_validation", "latent_caching", "training")
    assert not done(project, "git", "status", "--porcelain")
    return project


def runs_of(project: Path, experiment: str) -> dict[str, Any]:
    """MLflow's runs of an experiment, by pipeline."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    (where,) = [e.experiment_id for e in client.search_experiments() if e.name == "bolts"]
    found = client.search_runs([where], f"tags.dvc_exp_name = '{experiment}'")
    assert not client.search_registered_models()
    return {run.data.tags["pipeline"]: run for run in found}


def work_off_the_queue(project: Path) -> None:
    """Starts workers until nothing is queued: on a busy machine one may die between two tasks."""
    deadline = time.monotonic() + 600
    status = "Queued"
    try:
        while "Queued" in status or "Running" in status:
            assert time.monotonic() < deadline, status
            if "active" not in status or "0 active, 0 idle" in status:
                done(project, "dvc", "queue", "start")
            time.sleep(5)
            status = done(project, "dvc", "queue", "status")
    finally:
        run(project, "dvc", "queue", "stop", "--kill")


def table(project: Path) -> dict[str, dict[str, str]]:
    """Rows of the table that the documentation shows, by experiment."""
    page = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^dvc exp show .*$", page, re.MULTILINE)
    text = done(project, *shlex.split(line), "--csv")
    return {row["Experiment"]: row for row in csv.DictReader(io.StringIO(text))}


def test_a_parameter_without_its_file_is_refused(clean: Path) -> None:
    result = run(clean, "dvc", "exp", "run", "evaluation", "-S", "training.learning_rate=0.0005")
    assert result.returncode != 0
    assert "Key 'training' is not in struct" in result.stderr
    assert not done(clean, "git", "status", "--porcelain")


def test_an_experiment_runs_what_its_parameter_matters_to(clean: Path) -> None:
    change = f"{TRAINING}:training.learning_rate=0.0005"
    output = done(clean, "dvc", "exp", "run", "evaluation", "-n", "lower", "-S", change)
    assert "'latent_caching' didn't change, skipping" in output
    assert re.findall(r"Running stage '(\w+)'", output) == ["training", "evaluation"]
    changed = done(clean, "git", "diff", "--name-only").split()
    assert changed == [TRAINING, "data/08_reporting/bolts/training.json", "dvc.lock"]
    text = (clean / TRAINING).read_text()
    assert "  learning_rate: 0.0005 # of AdamW\n" in text

    runs = runs_of(clean, "lower")
    assert {name: run.info.status for name, run in runs.items()} == {
        "training": "FINISHED",
        "evaluation": "FINISHED",
    }
    head = done(clean, "git", "rev-parse", "HEAD").strip()
    assert {run.data.tags["dvc_exp_baseline_rev"] for run in runs.values()} == {head}
    row = table(clean)["lower"]
    assert row["mlflow_run_id"] == runs["evaluation"].info.run_id
    assert float(row["mean.image_auroc"]) == runs["evaluation"].data.metrics["mean/image_auroc"]
    assert row["training.learning_rate"] == "0.0005"
    assert len(row) < 25


def test_a_queue_runs_in_copies_and_reports_to_the_project(clean: Path) -> None:
    change = f"{EVALUATION}:evaluation.false_positive_rate=0.1,0.2"
    queued = done(clean, "dvc", "exp", "run", "--queue", "evaluation", "-S", change)
    names = re.findall(r"Queued experiment '([\w-]+)'", queued)
    assert len(names) == 2
    work_off_the_queue(clean)
    assert not done(clean, "git", "status", "--porcelain")

    rows = table(clean)
    for name in names:
        runs = runs_of(clean, name)
        assert set(runs) == {"evaluation"}
        found = runs["evaluation"]
        assert found.info.status == "FINISHED"
        assert found.info.artifact_uri.startswith((clean / "mlartifacts").as_uri())
        assert found.data.tags["git_dirty"] == "True"
        assert rows[name]["mlflow_run_id"] == found.info.run_id
        logs = done(clean, "dvc", "queue", "logs", name)
        assert "'training' didn't change, skipping" in logs
    assert "false_positive_rate" in done(clean, "dvc", "exp", "diff", *names, "--md")

    run(clean, "dvc", "exp", "apply", names[1])  # complains of what was never registered
    assert "up to date" in done(clean, "dvc", "status", "evaluation")
    assert json.loads((clean / RUN).read_text())["mlflow_run_id"] == rows[names[1]]["mlflow_run_id"]
    assert re.search("rate: 0.2 +# of good images", (clean / EVALUATION).read_text())
