"""Digests change with what they identify, and with nothing else."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from decodiff_pipeline.data import provenance
from decodiff_pipeline.deco.digests import folder_sha256
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path


def git(folder: Path, *arguments: str) -> None:
    options = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *options, *arguments], cwd=folder, check=True, capture_output=True)


def manifest(**changes: str) -> pd.DataFrame:
    row = {"category": "mono", "split": "train", "label": "good", "path": "a.png", "sha256": "aa"}
    other = {**row, "path": "b.png", "sha256": "bb"}
    return pd.DataFrame([{**row, **changes}, other])


def test_folder_digest_sees_content_names_and_nothing_else(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "unet" / "w.safetensors").write_bytes(b"weights")
        (tmp_path / name / "model_index.json").write_text("{}")
    first = folder_sha256(tmp_path / "one")
    assert folder_sha256(tmp_path / "two") == first

    (tmp_path / "two" / "model_index.json").write_text("{ }")
    changed = folder_sha256(tmp_path / "two")
    (tmp_path / "one" / "model_index.json").rename(tmp_path / "one" / "other.json")
    assert len({first, changed, folder_sha256(tmp_path / "one")}) == 3


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="kedro run --pipelines training"):
        folder_sha256(tmp_path / "pipeline")


def test_data_digest_ignores_order_and_further_columns() -> None:
    table = manifest()
    shuffled = table.iloc[::-1].assign(bytes=7)
    assert provenance.data_digest(shuffled) == provenance.data_digest(table)


@pytest.mark.parametrize(
    "change", [{"sha256": "cc"}, {"split": "test"}, {"label": "uncertain"}, {"path": "c.png"}]
)
def test_data_digest_changes_with_the_data(change: dict[str, str]) -> None:
    assert provenance.data_digest(manifest(**change)) != provenance.data_digest(manifest())


def test_git_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    assert provenance.git_state(tmp_path) == provenance.GitState(None, None)
    git(tmp_path, "init", "-q")
    assert provenance.git_state(tmp_path) == provenance.GitState(None, None)  # no commit yet

    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-q", "-m", "code")
    clean = provenance.git_state(tmp_path)
    assert clean.dirty is False
    assert clean.commit is not None
    assert len(clean.commit) == 40
    with monkeypatch.context() as experiment:
        experiment.setenv("DVC_EXP_NAME", "sappy-mesh")
        assert provenance.git_state(tmp_path) == provenance.GitState(clean.commit, True)

    (tmp_path / "code.py").write_text("2")
    assert provenance.git_state(tmp_path) == provenance.GitState(clean.commit, True)


def test_the_commit_of_a_repository_around_the_project_is_not_its_own(tmp_path: Path) -> None:
    project = tmp_path / "vendor" / "project"
    model = project / "data" / "06_models"
    model.mkdir(parents=True)
    git(tmp_path, "init", "-q")
    (tmp_path / "pyproject.toml").touch()
    (project / "pyproject.toml").touch()
    git(tmp_path, "add", "pyproject.toml")
    git(tmp_path, "commit", "-q", "-m", "another project")
    nothing = provenance.GitState(None, None)
    assert [provenance.git_state(folder) for folder in (project, model)] == [nothing] * 2
    assert provenance.git_state(tmp_path).commit

    git(tmp_path, "add", "vendor")
    git(tmp_path, "commit", "-q", "-m", "one repository for both")
    assert provenance.git_state(model).commit == provenance.git_state(tmp_path).commit
    assert provenance.git_state(model).commit


def test_a_git_that_is_asked_writes_nothing(tmp_path: Path) -> None:
    """Killed while it renews its index, it would leave a lock that stops every later commit."""
    git(tmp_path, "init", "--quiet")
    file, index = tmp_path / "file", tmp_path / ".git" / "index"
    file.write_text("same")
    git(tmp_path, "add", "file")
    before = index.read_bytes()
    os.utime(file, (0, 0))  # the index is out of date, and `git status` would write it anew
    assert provenance.git_output(tmp_path, "status", "--porcelain") == "A  file"
    assert index.read_bytes() == before
