"""What a retraining does with Git, DVC and the registry, with stages that take no time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

FILES = {
    "pyproject.toml": """
        [tool.kedro]
        package_name = "toy"
        project_name = "toy"
        kedro_init_version = "1.7.0"
        source_dir = "src"
    """,
    ".gitignore": """
        /data/*/*
        !/data/*/*.dvc
        !/data/08_reporting/*/
        /data/08_reporting/*/*
        !/data/08_reporting/*/promotion_log.jsonl
        __pycache__
        /conf/local/*
        !/conf/local/.gitkeep
        info.log
    """,
    ".telemetry": "consent: false",
    "conf/local/.gitkeep": "",
    "conf/base/globals.yml": "dataset: bolts",
    "conf/tiles/globals.yml": "dataset: tiles",
    "conf/base/parameters.yml": "training: {steps: 1}",
    "src/toy/__init__.py": "",
    "src/toy/settings.py": "",
    "src/toy/pipeline_registry.py": """
        from pathlib import Path
        from kedro.pipeline import Node, Pipeline


        def judge(registration):
            line = {"name": registration["name"], "outcome": "promoted", "from_version": None,
                    "to_version": registration["version"], "reason": None, "gates": []}
            dataset = registration["name"].removeprefix("decodiff-")
            log = Path(f"data/08_reporting/{dataset}/promotion_log.jsonl")
            return line, "# Promoted", [] if log.exists() else [{"at": "now"}]


        def register_pipelines():
            outputs = ["promotion", "promotion_summary", "promotion_log"]
            return {"promotion": Pipeline([Node(judge, "registration", outputs)])}
    """,
    "train.py": """
        import json, sys
        from pathlib import Path

        dataset = sys.argv[1]
        images = Path(f"data/01_raw/{dataset}/image.txt").read_text()
        Path(f"data/06_models/{dataset}").mkdir(parents=True, exist_ok=True)
        Path(f"data/08_reporting/{dataset}").mkdir(parents=True, exist_ok=True)
        Path(f"data/06_models/{dataset}/model").write_text(f"model of {images}")
        Path(f"data/08_reporting/{dataset}/evaluation.md").write_text("# Figures")
    """,
    "register.py": """
        import json, sys
        from contextlib import suppress
        from pathlib import Path
        from mlflow import MlflowClient, MlflowException

        dataset = sys.argv[1]
        model = Path(f"data/06_models/{dataset}/model").read_text()
        client, name = MlflowClient(), f"decodiff-{dataset}"
        with suppress(MlflowException):
            client.create_registered_model(name)
        version = client.create_model_version(name, "file:///nowhere", tags={"model_sha256": model})
        Path(f"data/08_reporting/{dataset}/registration.json").write_text(
            json.dumps({"name": name, "version": str(version.version), "sha256": model})
        )
    """,
}
REPORTS = {
    "promotion": "json.JSONDataset promotion.json",
    "promotion_summary": "text.TextDataset promotion.md",
    "evaluation_summary": "text.TextDataset evaluation.md",
    "registration": "json.JSONDataset registration.json",
    "model_record": "json.JSONDataset model_record.json",
    "evaluation_run": "json.JSONDataset evaluation_run.json",
    "promotion_log": "decodiff_pipeline.datasets.appended_lines.AppendedLinesDataset "
    "promotion_log.jsonl",
}


def stages(dataset: str) -> dict:
    """Two stages: a model of the images, and its registration."""
    raw, model = f"data/01_raw/{dataset}", f"data/06_models/{dataset}/model"
    reports = f"data/08_reporting/{dataset}"
    return {
        "training": {
            "cmd": f"{sys.executable} train.py {dataset}",
            "deps": [raw],
            "outs": [model, f"{reports}/evaluation.md"],
        },
        "registration": {
            "cmd": f"{sys.executable} register.py {dataset}",
            "deps": [model],
            "outs": [f"{reports}/registration.json"],
        },
    }


@dataclass
class Desk:
    """A checkout, and the registry that its commands work with."""

    folder: Path
    registry: str

    def run(self, *command: str) -> str:
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("DVC")},
            "MLFLOW_TRACKING_URI": self.registry,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "COLUMNS": "300",
            "DVC_SITE_CACHE_DIR": str(self.folder.parent / "site"),
            **{f"GIT_{role}_NAME": "line" for role in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{role}_EMAIL": "line@example.org" for role in ("AUTHOR", "COMMITTER")},
        }
        done = subprocess.run(
            command, cwd=self.folder, env=environment, check=False, timeout=900, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    def dvc(self, *arguments: str) -> None:
        self.run(sys.executable, "-m", "dvc", *arguments)

    def retrain(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "decodiff_pipeline.retrain", "--commit", *arguments)

    def commits(self) -> int:
        return int(self.run("git", "rev-list", "--count", "HEAD"))

    def registered(self, dataset: str = "bolts") -> dict:
        path = self.folder / "data/08_reporting" / dataset / "registration.json"
        return json.loads(path.read_text())

    def versions(self, dataset: str = "bolts") -> dict[str, dict[str, str]]:
        """Tags of each version in the registry."""
        from mlflow import MlflowClient

        found = MlflowClient(self.registry, self.registry).search_model_versions(
            f"name = 'decodiff-{dataset}'"
        )
        return {str(version.version): version.tags for version in found}


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A project whose stages ran on a laptop, with its own registry; all is committed."""
    home = tmp_path_factory.mktemp("team")
    desk = Desk(home / "laptop", f"sqlite:///{home / 'laptop.db'}")
    catalog = {
        name: {"type": kind.split()[0],
               "filepath": f"data/08_reporting/${{globals:dataset}}/{kind.split()[1]}"}
        for name, kind in REPORTS.items()
    }  # fmt: skip
    catalog["raw_images"] = {
        "type": "decodiff_pipeline.datasets.HandleDataset",
        "handle": "pathlib.Path",
        "filepath": "data/01_raw/${globals:dataset}",
    }
    tiles = {name: {"wdir": "../..", **stage} for name, stage in stages("tiles").items()}
    files = {
        **FILES,
        "conf/base/catalog.yml": yaml.safe_dump(catalog),
        "dvc.yaml": yaml.safe_dump({"stages": stages("bolts")}),
        "conf/tiles/dvc.yaml": yaml.safe_dump({"stages": tiles}),
        "data/01_raw/bolts/image.txt": "bolts",
        "data/01_raw/tiles/image.txt": "tiles",
    }
    for name, text in files.items():
        path = desk.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    desk.run("git", "init", "--quiet", "--initial-branch", "main")
    desk.dvc("init", "--quiet")
    desk.dvc("add", "--quiet", "data/01_raw/bolts", "data/01_raw/tiles")
    desk.dvc("repro", "--quiet")
    desk.dvc("remote", "add", "--quiet", "--default", "storage", str(home / "storage"))
    desk.run("git", "add", "--all")
    desk.run("git", "commit", "--quiet", "--message", "All")
    return desk


@pytest.fixture(scope="module")
def server(laptop: Desk) -> Desk:
    """The same checkout after a retraining against an empty registry and an empty remote."""
    desk = Desk(laptop.folder, f"sqlite:///{laptop.folder.parent / 'server.db'}")
    desk.retrain()
    return desk


def test_the_first_run_fills_an_empty_registry_and_an_empty_remote(
    laptop: Desk, server: Desk
) -> None:
    assert laptop.versions() == {"1": {"model_sha256": "model of bolts"}}
    (tags,) = server.versions().values()
    assert tags["model_sha256"] == "model of bolts"
    assert len(tags["dvc_revision"]) == 64
    assert list((server.folder.parent / "storage").rglob("*"))
    assert server.run("git", "status", "--porcelain", "--untracked-files=no") == ""


def test_an_idle_run_commits_nothing(server: Desk) -> None:
    before = server.commits(), server.versions()
    server.retrain()
    assert (server.commits(), server.versions()) == before


def test_a_fresh_clone_does_nothing_twice_and_unsaved_artifacts_stop_nobody(server: Desk) -> None:
    clone = Desk(server.folder.parent / "clone", server.registry)
    server.run("git", "clone", "--quiet", str(server.folder), str(clone.folder))
    output = clone.retrain()
    assert "Stage 'training' didn't change, skipping" in output
    assert (clone.commits(), clone.versions()) == (server.commits(), server.versions())
    # As after `kedro run --pipelines registration` by hand: it is in nobody's cache.
    path = clone.folder / "data/08_reporting/bolts/registration.json"
    path.write_text(path.read_text() + "\n")
    output = clone.retrain()
    assert "data/08_reporting/bolts/registration.json stays as it is" in output
    assert clone.registered()["version"] in clone.versions()


def test_an_environment_is_retrained_apart_from_the_others(server: Desk) -> None:
    lock = (server.folder / "dvc.lock").read_bytes()
    server.retrain("--env", "tiles")
    assert server.registered("tiles")["name"] == "decodiff-tiles"
    assert (server.folder / "dvc.lock").read_bytes() == lock
    of_tiles = server.versions("tiles")["1"]["dvc_revision"]
    assert of_tiles not in {tags["dvc_revision"] for tags in server.versions().values()}
    committed = server.run("git", "show", "--name-only", "--format=%s", "HEAD")
    assert "data/08_reporting/tiles/promotion_log.jsonl" in committed
