"""`decodiff-pipeline init`, from the checkout and from the built wheel in an empty folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from decodiff_pipeline.new_project import main

if TYPE_CHECKING:
    from types import SimpleNamespace

ROOT = Path(__file__).parents[1]


def test_a_project_has_the_repositorys_configuration_under_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["init", "my-line"])
    assert done.exit_code == 0, done.output
    project = tmp_path / "my-line"
    catalog = Path("conf/base/catalog.yml")
    assert (project / catalog).read_bytes() == (ROOT / catalog).read_bytes()
    assert "dataset: my-line\n" in (project / "conf/base/globals.yml").read_text()
    assert "KEDRO_ENV: my-line\n" in (project / ".github/workflows/retrain.yml").read_text()
    assert (project / "data/01_raw/my-line").is_dir()
    assert not [path for path in project.rglob("*") if path.name == "elpv"]
    for name in ("Makefile", "README.md", "requirements.txt"):
        assert not re.search(r"\{(name|version|kedro)\}", (project / name).read_text())


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "line").mkdir()
    (tmp_path / "line" / "kept").touch()
    for folder, sentence in {"line": "is there already", "My Line": "cannot be the name"}.items():
        done = CliRunner().invoke(main, ["init", str(tmp_path / folder)])
        assert done.exit_code == 1
        assert sentence in done.output
    assert [path.name for path in tmp_path.rglob("*")] == ["line", "kept"]


@pytest.mark.slow
def test_a_wheel_away_from_the_checkout_trains_and_promotes(
    tmp_path: Path, make: SimpleNamespace
) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().strip("\0").split("\0"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    options = ["--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "wheel", *options, "-w", tmp_path, source], check=True)
    shutil.rmtree(source)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)

    tools = Path(sys.executable).parent
    own = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    own |= {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    own["PATH"] = os.pathsep.join([str(site / "bin"), str(tools), os.environ["PATH"]])

    def run(folder: Path, *command: str) -> str:
        done = subprocess.run(
            command, cwd=folder, env=own, capture_output=True, text=True, timeout=1200, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    away = tmp_path / "away"
    away.mkdir()
    run(away, "decodiff-pipeline", "init", "my-line")
    project = away / "my-line"
    assert str(site) in run(
        project, "python", "-c", "import decodiff_pipeline as d; print(d.__file__)"
    )
    for number in range(40):
        make.image(project / f"data/01_raw/my-line/m6/good/{number}.png", number)
    for number in range(3):
        make.image(project / f"data/01_raw/my-line/m6/scratch/{number}.png", 600 + number)
    run(project, "make", "recommend")
    training = project / "conf/my-line/parameters_training.yml"
    training.write_text(re.sub(r"steps: \d+", "steps: 2", training.read_text(), count=1))
    run(project, "make", "run")
    assert (project / "conf/my-line/dvc.lock").is_file()
    run(project, "make", "promote")
    reports = project / "data/08_reporting/my-line"
    assert json.loads((reports / "registration.json").read_text())["name"] == "decodiff-my-line"
    assert json.loads((reports / "promotion.json").read_text())["outcome"] == "refused"
    assert "m6" in run(project, "make", "summary")
