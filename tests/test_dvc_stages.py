"""dvc.yaml follows from the Kedro project, and staleness is noticed."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from kedro.pipeline import Pipeline, node

from decodiff_pipeline.dvc_stages import STAGES, generate
from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.kedro_project import Project

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CATALOG: dict[str, Any] = {
    "raw": {"type": "toy.handles.Folder", "filepath": "data/01_raw/set"},
    "store": {"type": "toy.handles.Folder", "filepath": "data/04_feature/set"},
    "cache": {
        "type": "toy.handles.Folder",
        "filepath": "data/04_feature/set",
        "metadata": {"dvc": {"persist": True}},
    },
    "score": {
        "type": "json.JSONDataset",
        "filepath": "data/08_reporting/metrics.json",
        "metadata": {"dvc": {"metrics": True}},
    },
    "scratch": {
        "type": "json.JSONDataset",
        "filepath": "data/08_reporting/scratch.json",
        "metadata": {"dvc": {"ignore": True}},
    },
    "curve": {
        "type": "json.JSONDataset",
        "filepath": "data/08_reporting/curve.json",
        "metadata": {"dvc": {"plots": {"x": "fpr", "y": "tpr", "template": "by_category"}}},
    },
    "figures": {
        "type": "partitions.PartitionedDataset",
        "path": "data/08_reporting/figures",
        "metadata": {"dvc": {"cache": False}},
    },
}


WRONG_PLOT = CATALOG["curve"] | {"metadata": {"dvc": {"plots": {"z": "fpr"}}}}


def cache(raw: Any, store: Any, size: Any) -> Any:
    return store


def score(filled: Any, options: Any) -> Any:
    return filled, filled, filled, filled


def project(root: Path, **changes: Any) -> Project:
    """A project with the pipelines `caching` and `scoring` and a package `toy`."""
    package = root / "src" / "toy"
    files = {
        "pipelines/caching/__init__.py": "from .pipeline import create_pipeline\n",
        "pipelines/caching/pipeline.py": "def load():\n    from toy.data.store import x\n",
        "pipelines/scoring/__init__.py": "import toy.metrics\n",
        "data/__init__.py": "",
        "data/store.py": "from toy import errors\n",
        "data/unrelated.py": "import toy.metrics\n",
        "metrics.py": "",
        "errors.py": "",
        "handles.py": "",
        "weights/tiny.safetensors": "",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    values: dict[str, Any] = {
        "root": root,
        "package": package,
        "pipelines": {
            "caching": Pipeline(
                [node(cache, ["raw", "store", "params:autoencoder.size"], "cache")]
            ),
            "scoring": Pipeline(
                [node(score, ["cache", "params:scoring"], ["score", "scratch", "figures", "curve"])]
            ),
        },
        "catalog": CATALOG,
        "parameter_files": {
            "autoencoder": "conf/base/parameters_caching.yml",
            "scoring": "conf/base/parameters_scoring.yml",
        },
        "globals_files": {"dataset": "conf/base/globals.yml"},
    }
    return Project(**(values | changes))


def test_stages_of_a_project(tmp_path: Path) -> None:
    text = generate(project(tmp_path), ["caching", "scoring"])
    stages = yaml.safe_load(text)["stages"]
    plot = {"x": "fpr", "y": "tpr", "template": "by_category"}
    assert stages["caching"] == {
        "cmd": "kedro run --pipelines caching",
        "deps": [
            "src/toy/data",  # not metrics.py, which only an unused module of data imports
            "src/toy/errors.py",
            "src/toy/handles.py",
            "src/toy/pipelines/caching",
            "src/toy/weights",
            "data/01_raw/set",  # not the cache, which the stage reads and writes
        ],
        "params": [
            {"conf/base/globals.yml": ["dataset"]},
            {"conf/base/parameters_caching.yml": ["autoencoder"]},
        ],
        "outs": [{"data/04_feature/set": {"persist": True}}],
    }
    scoring = stages["scoring"]
    assert {"data/04_feature/set", "src/toy/metrics.py"} <= set(scoring["deps"])
    assert scoring["metrics"] == [{"data/08_reporting/metrics.json": {"cache": False}}]
    assert scoring["outs"] == [{"data/08_reporting/figures": {"cache": False}}]  # not `scratch`
    assert scoring["plots"] == [{"data/08_reporting/curve.json": plot}]


@pytest.mark.parametrize(
    ("changes", "stages", "named"),
    [
        ({}, ["caching", "training"], "training"),
        ({"parameter_files": {}}, ["caching"], "autoencoder"),
        (
            {"catalog": CATALOG | {"raw": {"type": "x.Y", "filepath": "/srv/images"}}},
            ["caching"],
            "/srv/images",
        ),
        (
            {"catalog": CATALOG | {"figures": CATALOG["cache"]}},
            ["caching", "scoring"],
            "data/04_feature/set",
        ),
        (
            {"catalog": CATALOG | {"curve": WRONG_PLOT}},
            ["scoring"],
            r"curve.json has metadata.dvc.plots with \['z'\]",
        ),
    ],
    ids=["pipeline", "parameter", "path outside", "output of two stages", "plot option"],
)
def test_what_dvc_could_not_run_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], stages: list[str], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        generate(project(tmp_path, **changes), stages)


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the module on a Kedro project in `tmp_path`, in a process of its own."""
    registry = f"""
        from kedro.pipeline import Pipeline, node

        def make(x):
            return x

        def register_pipelines():
            names = {STAGES!r}
            return {{n: Pipeline([node(make, f"params:{{n}}", n)]) for n in names}}
    """
    base = tmp_path / "conf" / "base"
    source = tmp_path / "src" / "toyproject"
    base.mkdir(parents=True)
    (source / "pipelines").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.kedro]\npackage_name = "toyproject"\nproject_name = "toy"\n'
        'kedro_init_version = "1.7.0"\nsource_dir = "src"\n'
    )
    (source / "__init__.py").write_text("")
    (source / "settings.py").write_text("")
    (source / "pipeline_registry.py").write_text(dedent(registry))
    (base / "globals.yml").write_text("dataset: set\n")
    for name in STAGES:
        (base / f"catalog_{name}.yml").write_text(
            f"{name}:\n  type: json.JSONDataset\n"
            f"  filepath: data/08_reporting/${{globals:dataset}}/{name}.json\n"
        )
        (base / f"parameters_{name}.yml").write_text(f"{name}: 1\n")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        module = [sys.executable, "-m", "decodiff_pipeline.dvc_stages", "--project", str(tmp_path)]
        return subprocess.run(
            [*module, *arguments], capture_output=True, text=True, check=False, timeout=120
        )

    return run


def test_check_passes_on_what_was_written_and_fails_with_a_diff_once_it_is_stale(
    tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert command().returncode == 0
    written = (tmp_path / "dvc.yaml").read_text()
    assert yaml.safe_load(written)["stages"].keys() == set(STAGES)
    assert str(tmp_path) not in written
    assert command("--check").returncode == 0

    tiles = tmp_path / "conf" / "tiles"
    tiles.mkdir()
    (tiles / "globals.yml").write_text("dataset: tiles\n")
    (tiles / "parameters.yml").write_text("training: 2\n")
    assert command("--env", "tiles").returncode == 0
    training = yaml.safe_load((tiles / "dvc.yaml").read_text())["stages"]["training"]
    assert training["cmd"] == "kedro run --env tiles --pipelines training"
    assert training["wdir"] == "../.."
    assert training["params"] == [
        {"conf/tiles/globals.yml": ["dataset"]},
        {"conf/tiles/parameters.yml": ["training"]},
    ]
    assert training["outs"] == ["data/08_reporting/tiles/training.json"]
    assert (tmp_path / "dvc.yaml").read_text() == written
    assert "screws" in command("--env", "screws").stderr
    (tiles / "dvc.yaml").write_text("stages: {}\n")

    (tmp_path / "conf" / "base" / "globals.yml").write_text("dataset: other\n")
    stale = command("--check")

    assert stale.returncode == 1
    assert "make dvc-yaml" in stale.stderr
    assert "conf/tiles/dvc.yaml" in stale.stderr
    assert "+    - data/08_reporting/other/training.json" in stale.stdout
    assert (tmp_path / "dvc.yaml").read_text() == written
