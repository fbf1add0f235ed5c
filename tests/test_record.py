"""What a run made is recorded, unless the parameters it was given are in no file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from decodiff_pipeline.deco.digests import file_sha256
from decodiff_pipeline.errors import ConfigurationError, ModelError
from decodiff_pipeline.kedro_project import Project
from decodiff_pipeline.record import _require_written_parameters, registered_version, tag_version

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("registration", "model_record", "evaluation_run")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The environment tiles, without a run yet."""
    catalog = {name: {"filepath": f"{name}.json"} for name in NAMES}
    parameters = {"training": {"steps": 400}}
    return Project(
        tmp_path, tmp_path, {}, catalog, {}, {}, environment="tiles", parameters=parameters
    )


def write(project: Project, name: str, content: Any) -> None:
    (project.root / f"{name}.json").write_text(json.dumps(content))


def test_parameters_that_no_file_has_are_named(project: Project) -> None:
    _require_written_parameters(project)
    used = {"training": {"steps": 150, "resume": "never"}}
    made = {"parameter_overrides": "training.resume, training.steps", "parameters": used}
    write(project, "model_record", made)
    with pytest.raises(ConfigurationError, match=r"training\.steps=150, but conf/tiles/.* 400"):
        _require_written_parameters(project)
    project.parameters["training"]["steps"] = 150
    write(project, "evaluation_run", {"parameter_overrides": "training.steps"})
    _require_written_parameters(project)  # written into the file since, and trained with
    write(project, "evaluation_run", {"parameter_overrides": "evaluation.resamples"})
    with pytest.raises(ConfigurationError, match=r"used evaluation\.resamples from --params"):
        _require_written_parameters(project)


@pytest.mark.usefixtures("store")
def test_the_version_is_tagged_with_the_lock_that_names_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException

    monkeypatch.delenv("DVC_ROOT", raising=False)
    client = mlflow.MlflowClient()
    client.create_registered_model("decodiff-tiles")
    client.create_model_version("decodiff-tiles", "file:///x", tags={"model_sha256": "aa"})
    home = project.root / "conf" / "tiles"
    home.mkdir(parents=True)
    assert tag_version(project).startswith("no version is tagged, because dvc.lock is")
    (home / "dvc.yaml").write_text("stages: {}")
    (home / "dvc.lock").write_text("stages: {}")
    registered = {"name": "decodiff-tiles", "version": "1", "sha256": "aa"}
    for absent in ({"version": "2"}, {"sha256": "bb"}, {"name": "decodiff-elpv"}):
        write(project, "registration", {**registered, **absent})
        assert "the registry has no version of this model" in tag_version(project)
    write(project, "registration", registered)
    assert "decodiff-tiles version 1 has the tag dvc_revision" in tag_version(project)
    tags = client.get_model_version("decodiff-tiles", "1").tags
    assert tags["dvc_revision"] == file_sha256(home / "dvc.lock")

    def away(*_: object) -> None:
        raise MlflowException("timed out")

    monkeypatch.setattr(mlflow.MlflowClient, "get_registered_model", away)
    with pytest.raises(ModelError, match="timed out"):
        registered_version(project)
