"""A store is moved to another one: runs, versions with their numbers, files and aliases."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
import pytest

from decodiff_pipeline.registry.copy_store import COPIED_FROM, main
from decodiff_pipeline.tracking.mlflow_values import artifact_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def laptop(register: Callable[..., dict[str, Any]], client: mlflow.MlflowClient, store: str) -> str:
    """Three versions, of which the second was removed; the third is the champion."""
    for threshold in (0.1, 0.2, 0.3):
        register(
            "bolts",
            thresholds={"categories": {"mono": {"threshold": threshold}}},
            metrics={"mean": {"image_auroc": 1 - threshold}},
        )
    client.delete_model_version("bolts", "2")
    client.set_registered_model_alias("bolts", "champion", "3")
    client.set_model_version_tag("bolts", "1", "rollback.reason", "false alarms")
    return store


def test_a_laptop_moves_to_a_server(
    laptop: str, empty_database: Path, tmp_path: Path, png: bytes,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "server").mkdir()
    shutil.copy(empty_database, tmp_path / "server" / "mlflow.db")
    server = f"sqlite:///{tmp_path / 'server' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert main([laptop]) == 0, capsys.readouterr().err
    assert "3 runs, 2 versions copied" in capsys.readouterr().out
    client = mlflow.MlflowClient(server, registry_uri=server)
    model = client.get_registered_model("bolts")
    assert {alias: str(number) for alias, number in model.aliases.items()} == {
        "champion": "3", "challenger": "3",
    }  # fmt: skip
    versions = {str(v.version): v for v in client.search_model_versions("name = 'bolts'")}
    assert set(versions) == {"1", "3"}
    assert versions["1"].tags["rollback.reason"] == "false alarms"

    before = mlflow.MlflowClient(laptop).get_run(versions["3"].tags[COPIED_FROM])
    run = client.get_run(versions["3"].run_id)
    assert run.data.metrics == before.data.metrics
    assert run.info.start_time == before.info.start_time
    assert run.data.tags[COPIED_FROM] == before.info.run_id
    assert artifact_bytes(run.info.run_id, "evaluation_record.parquet").startswith(b"PAR1")

    shutil.rmtree(tmp_path / "mlartifacts")  # the laptop is gone
    answer = mlflow.pyfunc.load_model("models:/bolts@champion").predict(
        pd.DataFrame({"image": [png], "category": ["mono"]})
    )
    assert answer["model_version"].tolist() == ["bolts/3"]
    assert answer["threshold"].tolist() == [0.3]


def test_a_second_copy_adds_nothing_and_another_model_is_not_mixed_in(
    laptop: str, empty_database: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shutil.copy(empty_database, tmp_path / "server.db")
    server = f"sqlite:///{tmp_path / 'server.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    client = mlflow.MlflowClient(server, registry_uri=server)
    assert main([laptop]) == 0
    assert main([laptop]) == 0
    assert "0 runs, 0 versions copied" in capsys.readouterr().out
    client.set_model_version_tag("bolts", "3", COPIED_FROM, "another")
    assert main([laptop]) == 1
    assert "has a version 3 of bolts that is no copy" in capsys.readouterr().err
    assert main([f"sqlite:///{tmp_path / 'nowhere.db'}"]) == 1
    assert not (tmp_path / "nowhere.db").exists()
