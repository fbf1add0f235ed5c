"""The lock counts only where it names what lies in the project, as DVC itself says."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from decodiff_pipeline.deco.digests import file_sha256
from decodiff_pipeline.dvc_lock import dvc_revision, unrecorded

if TYPE_CHECKING:
    from pathlib import Path

STAGES = {
    "train": {
        "cmd": "mkdir -p model cache && cp raw model/a && cp raw model/b && cp raw cache/c",
        "deps": ["raw"],
        "outs": ["model", {"cache": {"persist": True}}],
    },
    "measure": {
        "cmd": "cp model/a metrics.json",
        "deps": ["model"],
        "metrics": [{"metrics.json": {"cache": False}}],
    },
}


def dvc(project: Path, *arguments: str) -> None:
    environment = {**os.environ, "DVC_SITE_CACHE_DIR": str(project.parent / "site")}
    subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=project, env=environment, check=True
    )


@pytest.fixture(scope="module", params=[None, "tiles"])
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """Stages of the base environment or of another one, that DVC has run."""
    root = tmp_path_factory.mktemp("project")
    home = root / "conf" / "tiles" if request.param else root
    home.mkdir(parents=True, exist_ok=True)
    stages = {name: dict(stage) for name, stage in STAGES.items()}
    if request.param:
        stages = {name: {"wdir": "../..", **stage} for name, stage in stages.items()}
    (home / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (root / "raw").write_text("1")
    dvc(root, "init", "--quiet", "--no-scm")
    dvc(root, "repro", "--quiet", str(home / "dvc.yaml"))
    return root, request.param, home / "dvc.lock"


def test_a_lock_that_names_the_artifacts_is_the_revision(
    project: tuple[Path, str | None, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, environment, lock = project
    assert unrecorded(root, environment) == []
    assert dvc_revision(root, environment) == file_sha256(lock)
    assert dvc_revision(root, "screws") is None  # never another data set's
    monkeypatch.setenv("DVC_ROOT", str(root))  # DVC runs a stage
    assert dvc_revision(root, environment) is None


def test_a_lock_of_other_artifacts_is_no_revision(project: tuple[Path, str | None, Path]) -> None:
    root, environment, lock = project
    for path, name in ((root / "model" / "b", "model"), (root / "metrics.json", "metrics.json")):
        path.write_text("2")
        assert unrecorded(root, environment) == [name]
        assert dvc_revision(root, environment) is None
        path.write_text("1")
    text = lock.read_text()
    written = yaml.safe_load(text)
    del written["stages"]["measure"]  # the run was cut off
    lock.write_text(yaml.safe_dump(written))
    assert unrecorded(root, environment) == ["metrics.json"]
    lock.write_text(text)
    written = yaml.safe_load(text)
    written["stages"]["measure"]["deps"][0]["md5"] = "of the model before"
    lock.write_text(yaml.safe_dump(written))
    assert unrecorded(root, environment) == ["model"]
    lock.write_text("")
    assert dvc_revision(root, environment) is None
    lock.write_text(text)
    assert unrecorded(root, environment) == []
