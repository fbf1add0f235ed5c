"""The champion's files are copied as they were registered, or it is said why not."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from kedro.io import DataCatalog, DatasetError

from decodiff_pipeline.deco.digests import folder_sha256
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from decodiff_pipeline.datasets.champion import ChampionModel

SCRATCH = r"--params training\.init_from=scratch"


def catalog(folder: Path) -> DataCatalog:
    entry = {
        "type": "decodiff_pipeline.datasets.champion.ChampionModelDataset",
        "filepath": str(folder),
        "model_name": "decodiff-x",
    }
    return DataCatalog.from_config({"champion_model": entry})


@pytest.fixture
def handle(tmp_path: Path) -> ChampionModel:
    """As the catalog gives it to a node."""
    return catalog(tmp_path / "champion").load("champion_model")


@pytest.fixture
def logged(tmp_path: Path, tiny_model: Path) -> Path:
    """A logged model in an artifact store."""
    shutil.copytree(tiny_model, tmp_path / "logged" / "artifacts" / "pipeline")
    (tmp_path / "logged" / "artifacts" / "thresholds.json").write_text("{}")
    (tmp_path / "logged" / "MLmodel").write_text("")
    return tmp_path / "logged"


def promote(uri: str, logged: Path, tags: dict[str, str] | None = None) -> str:
    """Make a logged model a version and the champion; returns its number."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    if not client.search_registered_models():
        client.create_registered_model("decodiff-x")
    if tags is None:
        tags = {"model_sha256": folder_sha256(logged / "artifacts" / "pipeline")}
    version = client.create_model_version("decodiff-x", logged.as_uri(), tags=tags)
    client.set_registered_model_alias("decodiff-x", "champion", version.version)
    return str(version.version)


def test_there_may_be_no_champion_yet(store: str, handle: ChampionModel) -> None:
    from mlflow import MlflowClient

    assert handle.fetch() is None
    MlflowClient(store).create_registered_model("decodiff-x")
    assert handle.fetch() is None


def test_its_files_are_those_that_were_registered(
    store: str, handle: ChampionModel, logged: Path, tiny_model: Path, tmp_path: Path
) -> None:
    number = promote(store, logged)
    found = handle.fetch()
    assert (found.model, found.version) == ("decodiff-x", number)
    assert found.sha256 == folder_sha256(tiny_model) == folder_sha256(found.folder)
    assert not (tmp_path / "champion" / "MLmodel").exists()


def test_a_copy_is_used_again_unless_it_is_damaged_or_of_another_version(
    store: str, handle: ChampionModel, logged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    promote(store, logged)
    first = handle.fetch()
    download, calls = mlflow.artifacts.download_artifacts, []
    monkeypatch.setattr(
        mlflow.artifacts, "download_artifacts", lambda **k: calls.append(1) or download(**k)
    )
    assert handle.fetch() == first
    assert calls == []
    (first.folder / "unet" / "config.json").write_text("{}")
    assert handle.fetch() == first
    assert folder_sha256(first.folder) == first.sha256
    assert calls == [1]
    (logged / "artifacts" / "pipeline" / "note.txt").write_text("another model")
    promote(store, logged)
    second = handle.fetch()
    assert (second.version, (second.folder / "note.txt").is_file()) == ("2", True)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("changed", "models:/decodiff-x/1.* not those "),
        ("gone", "models:/decodiff-x/1.* cannot be read "),
        ("no digest", "no tag model_sha256"),
    ],
)
def test_other_files_than_the_registered_ones_stop_the_run(
    store: str, handle: ChampionModel, logged: Path, tmp_path: Path, fault: str, message: str
) -> None:
    promote(store, logged, tags={} if fault == "no digest" else None)
    if fault == "changed":
        (logged / "artifacts/pipeline/unet/config.json").write_text("{}")
    elif fault == "gone":
        shutil.rmtree(logged)
    with pytest.raises(ModelError, match=f"{message}.*{SCRATCH}"):
        handle.fetch()
    assert not (tmp_path / "champion").exists()


def test_an_unreachable_server_stops_the_run(
    store: str, handle: ChampionModel, unreachable: str
) -> None:
    import mlflow

    mlflow.set_tracking_uri(unreachable)
    with pytest.raises(
        ModelError, match=rf"did not answer when asked for the champion of .*{SCRATCH}"
    ) as caught:
        handle.fetch()
    assert "secret" not in str(caught.value)


def test_a_champion_is_read_only(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="kedro run --pipelines promotion"):
        catalog(tmp_path).save("champion_model", 1)
