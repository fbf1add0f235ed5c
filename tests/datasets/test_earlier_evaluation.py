"""The evaluation of the champion or of a Git revision is found, or it is said why not."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from kedro.io import DataCatalog

from decodiff_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from decodiff_pipeline.datasets.earlier_evaluation import EarlierEvaluations

RECORD, METRICS = "data/evaluation_record.parquet", "data/metrics.json"


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), "-c", "user.name=n", "-c", "user.email=e@x", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def write(root: Path, score: float) -> None:
    (root / "data").mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"category": ["plate"], "score": [score]}).to_parquet(root / RECORD)
    (root / METRICS).write_text(json.dumps({"categories": {}, "score": score}))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository: nothing in v0, metrics in v1, the record as well in v2; other files now."""
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "commit", "--quiet", "--allow-empty", "--message=v0")
    git(root, "tag", "v0")
    write(root, 0.25)
    git(root, "add", METRICS)
    git(root, "commit", "--quiet", "--message=v1")
    git(root, "tag", "v1")
    git(root, "add", RECORD)
    git(root, "commit", "--quiet", "--message=v2")
    git(root, "tag", "v2")
    write(root, 0.75)
    return root


def references(root: Path) -> EarlierEvaluations:
    """As the catalog gives them to a node."""
    entry = {
        "type": "decodiff_pipeline.datasets.earlier_evaluation.EarlierEvaluationDataset",
        "filepath": str(root / RECORD),
        "metrics": str(root / METRICS),
        "model_name": "decodiff-x",
    }
    return DataCatalog.from_config({"references": entry}).load("references")


def test_a_revision_is_read_as_it_was_committed(project: Path) -> None:
    found = references(project).load("v2")
    assert found.record["score"].tolist() == [0.25]
    assert found.metrics == {"categories": {}, "score": 0.25}
    assert found.missing is None
    assert found.name == f"v2 ({git(project, 'rev-parse', 'v2')[:7]})"


def test_what_dvc_keeps_is_found_too(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    git(project, "rm", "--quiet", "--cached", RECORD)
    for command in (["init", "--quiet"], ["add", "--quiet", RECORD]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=project, check=True)
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message=v3")
    write(project, 0.9)
    found = references(project).load("HEAD")
    assert found.record["score"].tolist() == [0.75]


def test_a_revision_without_a_record_says_so_and_keeps_its_metrics(project: Path) -> None:
    found = references(project).load("v1")
    assert found.record is None
    assert "has no evaluation_record.parquet" in str(found.missing)
    nothing = references(project).load("v0")
    assert nothing.metrics is None
    assert "no metrics.json" in str(nothing.missing)


@pytest.mark.parametrize("revision", ["mian", "--help", "v2:data"])
def test_a_misspelt_revision_is_an_error_before_any_work(project: Path, revision: str) -> None:
    with pytest.raises(ConfigurationError, match=f"evaluation.compare_with is '{revision}'"):
        references(project).check(revision)
    references(project).check("v2")
    references(project).check("champion")
    references(project).check(None)


def test_without_a_repository_a_revision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Git knows no such revision"):
        references(tmp_path).check("main")


def test_the_champion_is_the_run_that_its_version_came_from(store: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(store)
    run = client.create_run(client.get_experiment_by_name("default").experiment_id)
    client.create_registered_model("decodiff-x")
    version = client.create_model_version("decodiff-x", "/nowhere", run_id=run.info.run_id)
    absent = references(tmp_path).load("champion")
    assert absent.missing == "the model decodiff-x has no champion yet"

    client.set_registered_model_alias("decodiff-x", "champion", version.version)
    incomplete = references(tmp_path).load("champion")
    assert incomplete.metrics is None
    assert "champion (decodiff-x version 1) has no metrics.json" in incomplete.missing

    write(tmp_path, 0.5)
    for name in (RECORD, METRICS):
        client.log_artifact(run.info.run_id, str(tmp_path / name))
    found = references(tmp_path).load("champion")
    assert found.name == "champion (decodiff-x version 1)"
    assert found.record["score"].tolist() == [0.5]
    assert found.metrics == {"categories": {}, "score": 0.5}


def test_an_unreachable_server_is_not_an_error(
    store: str, tmp_path: Path, unreachable: str
) -> None:
    import mlflow

    mlflow.set_tracking_uri(unreachable)
    found = references(tmp_path).load("champion")
    assert "MLflow could not be asked" in str(found.missing)
    assert "secret" not in str(found.missing)
