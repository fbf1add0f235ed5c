"""The files around the code agree with each other and with what users were promised."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image
from scmrepo.git import Git

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "diffusers", "mlflow", "great_expectations", "sklearn", "matplotlib"}


def text(name: str) -> str:
    """The content of a file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["make check", "make test"])
def test_ci_runs_the_commands_that_the_readme_names(command: str) -> None:
    assert command in text(".ci/run").splitlines()
    assert command in text("README.md")


def test_the_lock_installs_anywhere_and_without_cuda() -> None:
    lock = text("requirements.lock")
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", lock, flags=re.MULTILINE))
    assert re.fullmatch(r"[\d.]+", pins["torch"])
    assert not [name for name in pins if name.startswith(("nvidia", "cuda", "triton"))]
    assert not re.search(r"^--?\w|://|^\s*# via .*/", lock, flags=re.MULTILINE)


def test_the_lock_satisfies_every_requirement_of_the_demo_and_the_tests() -> None:
    pins = {
        canonicalize_name(name): version
        for name, version in re.findall(
            r"^([\w.-]+)==(\S+)$", text("requirements.lock"), flags=re.MULTILINE
        )
    }
    project = tomllib.loads(text("pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    locked = ("demo", "airflow", "autoencoder", "onnx", "team", "docs", "dev")
    wanted = [*project["dependencies"], *(line for name in locked for line in extras[name])]
    for line in wanted:
        requirement = Requirement(line)
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, line


def test_the_image_installs_what_a_version_requires_and_copies_no_more_than_it_may() -> None:
    from decodiff_pipeline.registry.logged_model import REQUIREMENTS

    dockerfile = text("Dockerfile").replace("\\\n", " ")
    (_, served) = dockerfile.split(" AS build-serve\n")
    (installed,) = re.findall(r"--constraint requirements.lock (.*)", served)
    assert set(REQUIREMENTS) <= set(installed.split())
    lock = set(re.findall(r"^([\w.-]+)==", text("requirements.lock"), flags=re.MULTILINE))
    assert set(installed.split()) <= lock
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, flags=re.MULTILINE)
    allowed = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    assert set(" ".join(copied).split()) == allowed
    assert re.search(r'^ENTRYPOINT \["python", ', served, flags=re.MULTILINE)
    assert re.findall(r"^USER \d+$", dockerfile, flags=re.MULTILINE) == ["USER 10001"] * 2
    assert "conf/local/*" in text(".dockerignore")  # credentials


def test_actions_are_pinned_to_commits_and_may_only_read() -> None:
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow["permissions"] == {"contents": "read"}
        uses = [
            step["uses"]
            for job in workflow["jobs"].values()
            for step in job["steps"]
            if "uses" in step
        ]
        assert uses
        for action in uses:
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        ("data/01_raw/", False),
        ("data/01_raw/elpv.dvc", False),
        ("data/01_raw/elpv", True),
        ("data/04_feature/elpv/", True),
        ("data/06_models/elpv/checkpoints", True),
        ("data/08_reporting/elpv/", False),
        ("data/08_reporting/elpv/metrics.json", False),
        ("data/08_reporting/elpv/report.html", True),
        ("conf/local/.gitkeep", False),
        ("conf/local/credentials.yml", True),
        ("mlflow.db", True),
        ("dvc_plots/index.html", True),
    ],
)
def test_git_and_dvc_agree_on_what_is_ignored(tmp_path: Path, path: str, ignored: bool) -> None:
    # DVC has its own reading of .gitignore, and does not look for pointers in ignored folders.
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text(text(".gitignore"))
    (tmp_path / path.rstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    git = subprocess.run(["git", "-C", str(tmp_path), "check-ignore", "-q", path], check=False)
    assert (git.returncode == 0) is ignored
    assert Git(str(tmp_path)).is_ignored(f"{tmp_path}/{path}") is ignored


def test_metrics_in_dvc_yaml_can_be_committed_to_git() -> None:
    stages = yaml.safe_load(text("dvc.yaml"))["stages"].values()
    paths = [path for stage in stages for entry in stage.get("metrics", []) for path in entry]
    assert paths
    for path in paths:
        git = subprocess.run(
            ["git", "check-ignore", "--no-index", "-q", path], cwd=ROOT, check=False
        )
        assert git.returncode == 1, f"{path} is ignored by .gitignore"


def test_knowing_every_pipeline_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from kedro.framework.project import pipelines\n"
        "from kedro.framework.startup import bootstrap_project\n"
        "bootstrap_project(Path.cwd()); assert len(pipelines) > 5\n"
        f"print('heavy:', *sorted({HEAVY!r} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "heavy:"


def test_the_python_of_the_readme_runs_as_it_stands(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", text("README.md"), re.DOTALL)
    shutil.copytree(tiny_model, tmp_path / "data" / "06_models" / "elpv" / "pipeline")
    monkeypatch.chdir(tmp_path)
    names = {"image": Image.new("L", (60, 50), 90)}
    exec(code, names)  # noqa: S102 - our own README
    out = names["out"]
    assert out.scores.shape == (1,)
    assert out.anomaly_maps[0].shape == (32, 32)
    assert out.reconstructions[0].shape == (32, 32, 3)
    assert out.reconstructions[0].dtype == np.uint8


def test_a_user_without_name_and_home_gets_a_temporary_one() -> None:
    """As in a container that runs as a number: libraries ask for both while they are imported."""
    program = """
import os, pwd
def nobody(number): raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = nobody
import decodiff_pipeline, getpass, pathlib
print(getpass.getuser(), os.path.isdir(pathlib.Path.home()), pathlib.Path.home())
"""
    names = {"HOME", "USER", "LOGNAME", "LNAME", "USERNAME"}
    bare = {name: value for name, value in os.environ.items() if name not in names}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=bare, capture_output=True, text=True, check=True
    )
    user, there, home = ran.stdout.split()
    assert (user, there) == (str(os.getuid()), "True")
    assert "HOME is not set" in ran.stderr
    assert not Path(home).exists()


@pytest.mark.parametrize(
    ("set_by_the_user", "policy"),
    [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"), ({"GOMP_SPINCOUNT": "9"}, "None")],
)
def test_idle_threads_sleep_unless_the_user_says_otherwise(
    set_by_the_user: dict[str, str], policy: str
) -> None:
    seen = "os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules"
    program = f"import os, sys, decodiff_pipeline; print({seen})"
    names = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}
    bare = {name: value for name, value in os.environ.items() if name not in names}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=bare | set_by_the_user, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout.split() == [policy, "False"]
