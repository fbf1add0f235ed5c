"""All that the scheduled workflow runs: clones, a DVC remote, an MLflow server, trained models."""

from __future__ import annotations

import base64
import hmac
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import requests
import yaml
from PIL import Image
from tests.servers import free_port, wait_for

from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.pipeline_registry import STAGES
from decodiff_pipeline.registry.alias_lock import AliasLock
from decodiff_pipeline.retrain import Files, _take_lock, retrain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
FILES = (".dvc/config", ".dvc/plots", ".dvcignore", ".gitignore", ".telemetry", "conf/base",
         "conf/logging.yml", "conf/local/.gitkeep", "pyproject.toml", "src")  # fmt: skip
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "retrain.yml").read_text())
# GitHub's command line: one pull request at most is open, and its text is kept.
GH = """\
#!/bin/sh
case "$1 $2" in
"auth setup-git") ;;
"pr list") test ! -f "$PAGES" || echo 7 ;;
"pr edit") test -f "$PAGES" -a "$3" = 7 && cp "$5" "$PAGES" ;;
"pr create") test ! -f "$PAGES" && cp "$8" "$PAGES" ;;
*) exit 1 ;;
esac
"""
SIDE = 64
PARAMETERS: dict[str, dict[str, Any]] = {
    "globals": {"dataset": "line"},
    "parameters_data": {"data": {"layout": "mvtec", "categories": None}},
    "parameters_caching": {
        "preprocessing": {"resize": SIDE, "image_size": SIDE},
        "latent_cache": {"views": 1, "batch_size": 16},
    },
    "parameters_training": {
        "training": {
            "preset": "nano", "steps": 40, "max_minutes": None, "batch_size": 16,
            "standardise_latents": True, "progress_bar": False, "category_balance": 0.0,
        },
        # The first model is to be a bad one, and the next better by more than noise.
        "scoring": {"usual_components": 0},
    },
    "parameters_evaluation": {"evaluation": {"resamples": 300, "review_images": 0}},
    # Squares on smooth ground are too easy for a PCA to be a floor, and the first model is bad.
    "parameters_promotion": {
        "promotion": {
            "baseline": {"improvement": {}, "regression": {}}, "floors": {}, "resamples": 300,
            "min_calibration_images": 0, "false_positive_rate": 1,
            "false_positive_significance": 1e-12,
            "champion": {
                "improvement": {"pixel_aupro": 0.0}, "regression": {"pixel_aupro": 0.2},
                "by_category": {"nut": {"pixel_aupro": 0.02}}, "within_noise": "refuse",
            },
        }
    },
}  # fmt: skip


def part(category: str, rng: np.random.Generator, squares: int) -> tuple[Image.Image, Image.Image]:
    """A part with brighter and darker squares on its upper half, and the mask of these."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    grey = {"bolt": 90 + 60 * x, "nut": 90 + 60 * y, "pin": 100 + 30 * np.sin(12 * x)}[category]
    grey = grey + rng.normal(0, 6, (SIDE, SIDE))
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for _ in range(squares):
        top, left = rng.integers(2, 30), rng.integers(4, SIDE - 20)
        grey[top : top + 14, left : left + 14] += rng.uniform(50, 90) * rng.choice([1, -1])
        mask[top : top + 14, left : left + 14] = 255
    return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)), Image.fromarray(mask)


def put_test_images(folder: Path, seed: int) -> None:
    """Sixteen good and sixteen defective test images of a category, with masks."""
    rng = np.random.default_rng(100 + seed)
    for name in ("test/good", "test/square", "ground_truth/square"):
        (folder / name).mkdir(parents=True)
    for i in range(16):
        part(folder.name, rng, 0)[0].save(folder / "test" / "good" / f"{i:02}.png")
        image, mask = part(folder.name, rng, 1)
        image.save(folder / "test" / "square" / f"{i:02}.png")
        mask.save(folder / "ground_truth" / "square" / f"{i:02}_mask.png")


def put_train_images(folder: Path, seed: int, *, spoilt: bool) -> None:
    """Training images; spoilt ones are full of what the test calls a defect."""
    rng = np.random.default_rng(seed)
    good = folder / "train" / "good"
    shutil.rmtree(good, ignore_errors=True)
    good.mkdir(parents=True)
    for i in range(96 if spoilt else 48):
        part(folder.name, rng, 12 if spoilt else 0)[0].save(good / f"{i:02}.png")


def scripts(job: str) -> list[dict[str, Any]]:
    """The steps of a job of the workflow that are shell scripts."""
    return [step for step in WORKFLOW["jobs"][job]["steps"] if "run" in step]


@dataclass(frozen=True)
class Ran:
    """A retraining in a fresh clone."""

    clone: Path
    code: int
    output: str

    @property
    def promotion(self) -> dict[str, Any]:
        return json.loads((self.clone / "data/08_reporting/line/promotion.json").read_text())

    @property
    def page(self) -> str:
        return (self.clone / "data/08_reporting/line/retrain.md").read_text()


class Team:
    """A Git server, a DVC remote, an MLflow server, and the desk that data are committed from."""

    def __init__(self, home: Path, uri: str) -> None:
        self.home = home
        self.uri = uri
        self.desk = home / "desk"
        self.clones = 0
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
            "MLFLOW_TRACKING_URI": uri,
            "DVC_SITE_CACHE_DIR": str(home / "site"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            **{f"GIT_{role}_NAME": "line" for role in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{role}_EMAIL": "line@example.org" for role in ("AUTHOR", "COMMITTER")},
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "300",
        }  # fmt: skip

    def run(self, folder: Path, *command: str, check: bool = True) -> tuple[int, str]:
        """Run a command of the environment in a clone, with the clone's own code."""
        done = subprocess.run(
            command,
            cwd=folder,
            env={**self.environment, "PYTHONPATH": str(folder / "src")},
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        assert not check or done.returncode == 0, done.stdout[-4000:]
        return done.returncode, done.stdout

    def dvc(self, *arguments: str) -> None:
        self.run(self.desk, sys.executable, "-m", "dvc", *arguments)

    def git(self, *arguments: str) -> None:
        self.run(self.desk, "git", *arguments)

    def found(self) -> None:
        """Commit the project; store its data."""
        for name in FILES:
            source, target = ROOT / name, self.desk / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.egg-info"))
            else:
                shutil.copy(source, target)
        for name, values in PARAMETERS.items():
            file = self.desk / "conf" / "base" / f"{name}.yml"
            settings = yaml.safe_load(file.read_text())
            for key, value in values.items():
                settings[key] = {**settings[key], **value} if isinstance(value, dict) else value
            file.write_text(yaml.safe_dump(settings))
        self.git("init", "--quiet", "--initial-branch", "main")
        origin = str(self.home / "origin.git")
        self.git("init", "--quiet", "--bare", "--initial-branch", "main", origin)
        self.git("remote", "add", "origin", origin)
        self.dvc("remote", "add", "--default", "storage", str(self.home / "storage"))
        self.run(self.desk, sys.executable, "-m", "decodiff_pipeline.dvc_stages")
        (self.home / "bin").mkdir()
        (self.home / "bin" / "gh").write_text(GH)
        (self.home / "bin" / "gh").chmod(0o755)

    def deliver(self, **spoilt: bool) -> None:
        """Commit training images of the categories named."""
        for category, is_spoilt in spoilt.items():
            folder = self.desk / "data" / "01_raw" / "line" / category
            seed = sorted(("bolt", "nut", "pin")).index(category)
            if not folder.exists():
                put_test_images(folder, seed)
            put_train_images(folder, seed, spoilt=is_spoilt)
        self.dvc("add", "--quiet", "data/01_raw/line")
        self.dvc("push", "--quiet")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Data")
        self.git("push", "--quiet", "origin", "main")

    def clone(self) -> Path:
        """A fresh clone of main."""
        self.clones += 1
        folder = self.home / f"runner{self.clones}"
        self.run(self.home, "git", "clone", "--quiet", str(self.home / "origin.git"), str(folder))
        return folder

    def retrain(self) -> Ran:
        """What the workflow does, with its own scripts."""
        folder = self.clone()
        (folder / ".venv").symlink_to(sys.prefix)
        _, commit = self.run(folder, "git", "rev-parse", "HEAD")
        variables = {
            "DVC_REMOTE": str(self.home / "storage"),
            "GITHUB_SHA": commit.strip(),
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        }
        code, output = 0, ""
        for step in scripts("retrain"):
            if step["run"] != "make venv" and (code == 0 or step.get("if") == "always()"):
                failed, printed = self.script(folder, step["run"], variables)
                code, output = code or failed, output + printed
        self.publish(folder / "result")
        return Ran(folder, code, output)

    def publish(self, result: Path) -> None:
        """The job that may write, on another machine."""
        folder = self.clone()
        shutil.copytree(result, folder / "result")
        for step in scripts("publish"):
            variables = {"PAGES": str(self.home / "pages"), "GITHUB_RUN_ID": "1"}
            code, output = self.script(folder, step["run"], variables)
            assert code == 0, output

    def script(self, folder: Path, script: str, variables: dict[str, str]) -> tuple[int, str]:
        path = f"{self.home / 'bin'}{os.pathsep}{os.environ['PATH']}"
        given = [f"{name}={value}" for name, value in {"PATH": path, **variables}.items()]
        shell = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script)  # as GitHub does
        return self.run(folder, "env", *given, *shell, check=False)

    def aliases(self) -> dict[str, str]:
        from mlflow import MlflowClient

        model = MlflowClient(self.uri, registry_uri=self.uri).get_registered_model("decodiff-line")
        return {alias: str(version) for alias, version in model.aliases.items()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of an MLflow server with a place of its own for artifacts."""
    home, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1", "--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}",
        "--artifacts-destination", str(home / "artifacts"),
    ]  # fmt: skip
    quiet = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes less
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(bytes(32)).decode(),
    }
    with (home / "log").open("w") as log, subprocess.Popen(
        command, cwd=home, env=quiet, stdout=log, stderr=log, start_new_session=True
    ) as process:  # fmt: skip
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, home / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def test_a_webhook_tells_that_a_version_became_champion(server: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    port, told = free_port(), tmp_path / "told"
    command = ["sh", "-c", 'echo "$MODEL_NAME $MODEL_VERSION" >> "$0"', str(told)]
    script = ROOT / "deploy" / "on_promotion.py"
    key = "s3cret"
    secret = {**os.environ, "WEBHOOK_SECRET": key}
    with subprocess.Popen([sys.executable, script, str(port), *command], env=secret) as receiver:
        try:
            url = f"http://127.0.0.1:{port}/"
            client = MlflowClient(server, registry_uri=server)
            client.create_webhook("line", url, ["model_version_alias.created"], secret=key)
            client.create_registered_model("hooked")
            run = client.create_run(client.create_experiment("hooked")).info
            client.create_model_version("hooked", run.artifact_uri, run.run_id)
            for alias in ("challenger", "champion"):
                client.set_registered_model_alias("hooked", alias, "1")
            deadline = time.monotonic() + 30
            while not told.exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            assert told.read_text() == "hooked 1\n"

            event = {"entity": "model_version_alias", "action": "created"}
            event["data"] = {"name": "hooked", "alias": "champion", "version": "2"}
            body = json.dumps(event)
            now = int(time.time())
            for other, when, status in ((key, now, 204), (key, now - 900, 401), ("x", now, 401)):
                signed = hmac.digest(other.encode(), f"7.{when}.{body}".encode(), "sha256")
                headers = {
                    "X-MLflow-Delivery-Id": "7",
                    "X-MLflow-Timestamp": str(when),
                    "X-MLflow-Signature": f"v1,{base64.b64encode(signed).decode()}",
                }
                assert requests.post(url, body, headers=headers, timeout=20).status_code == status
            assert requests.post(url, body, timeout=20).status_code == 401
            assert told.read_text() == "hooked 1\nhooked 2\n"
        finally:
            receiver.terminate()


def test_a_laptop_moves_to_the_server(
    server: str, register: Callable[..., dict[str, Any]], store: str, png: bytes
) -> None:
    """By the documented command: a champion, and a version before it that was removed."""
    import mlflow

    for threshold in (0.1, 0.2):
        register("tiles", thresholds={"categories": {"mono": {"threshold": threshold}}})
    laptop = mlflow.MlflowClient(store)
    laptop.delete_model_version("tiles", "1")
    laptop.set_registered_model_alias("tiles", "champion", "2")
    command = [sys.executable, "-m", "decodiff_pipeline.registry.copy_store", store]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": server}
    for copied in ("2 runs, 1 versions", "0 runs, 0 versions"):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stderr
        assert copied in done.stdout
    mlflow.set_tracking_uri(server)
    client = mlflow.MlflowClient()
    with AliasLock(client, "tiles").held():  # also through a server
        names = {model.name for model in client.search_registered_models()}
        assert {"tiles", "tiles.lock"} <= names
    model = mlflow.pyfunc.load_model("models:/tiles@champion")
    answer = model.predict(pd.DataFrame({"image": [png], "category": ["mono"]}))
    assert answer["model_version"].tolist() == ["tiles/2"]
    assert answer["threshold"].tolist() == [0.2]


@dataclass(frozen=True)
class Story:
    """What happened, in order."""

    team: Team
    first: Ran
    again: Ran
    better: Ran
    lossy: Ran
    aliases: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, server: str) -> Story:
    """Three models are trained: on spoilt images, with good nuts, with good bolts and pins."""
    home = tmp_path_factory.mktemp("team")
    (home / "desk").mkdir()
    team = Team(home, server)
    team.found()
    deliveries: dict[str, dict[str, bool]] = {
        "first": {"bolt": True, "nut": True, "pin": True},
        "again": {},
        "better": {"nut": False},
        "lossy": {"bolt": False, "pin": False, "nut": True},
    }
    ran, aliases = {}, {}
    for name, spoilt in deliveries.items():
        if spoilt:
            team.deliver(**spoilt)
        ran[name], aliases[name] = team.retrain(), team.aliases()
    return Story(team, **ran, aliases=aliases)


def test_the_first_run_trains_and_promotes(story: Story) -> None:
    assert story.first.code == 0, story.first.output[-4000:]
    assert story.aliases["first"] == {"champion": "1", "challenger": "1"}
    assert story.first.promotion["outcome"] == "promoted"
    assert "version 1 is the first champion" in story.first.page
    assert "| bolt |" in story.first.page
    assert (story.first.clone / "summary.md").read_text() == story.first.page


def test_a_second_run_on_the_same_data_does_nothing(story: Story) -> None:
    assert story.again.code == 0, story.again.output[-4000:]
    for stage in STAGES:
        assert f"Stage '{stage}' didn't change, skipping" in story.again.output
    assert story.aliases["again"] == story.aliases["first"]
    assert story.again.promotion["outcome"] == "unchanged"


def test_a_better_model_is_promoted(story: Story) -> None:
    assert story.better.code == 0, story.better.output[-4000:]
    assert story.better.promotion["outcome"] == "promoted"
    assert story.aliases["better"] == {"champion": "2", "challenger": "2", "previous": "1"}


def test_a_better_mean_does_not_make_up_for_a_category(story: Story) -> None:
    assert story.lossy.code == 0, story.lossy.output[-4000:]
    outcome = story.lossy.promotion
    assert outcome["outcome"] == "refused"
    assert story.aliases["lossy"] == {"champion": "2", "challenger": "3", "previous": "1"}
    gates = {(gate["name"], gate["category"], gate["metric"]): gate for gate in outcome["gates"]}
    mean = gates["gain over champion", "mean", "pixel_aupro"]
    nut = gates["no loss against champion", "nut", "pixel_aupro"]
    assert mean["value"] > mean["reference"]
    assert mean["passed"]
    assert not nut["passed"]


def test_every_decision_is_in_git(story: Story) -> None:
    _, log = story.team.run(
        story.lossy.clone, "git", "show", "HEAD:data/08_reporting/line/promotion_log.jsonl"
    )
    lines = [json.loads(line) for line in log.splitlines()]
    assert [line["outcome"] for line in lines] == ["promoted", "promoted", "refused"]
    assert not any(line["git_dirty"] for line in lines)
    _, subject = story.team.run(story.lossy.clone, "git", "log", "-1", "--format=%s")
    assert "version 3 is refused" in subject
    assert (story.team.home / "pages").read_text() == story.lossy.page


def test_artifacts_are_in_the_remote(story: Story) -> None:
    clone = story.team.clone()
    story.team.run(clone, "git", "checkout", "--quiet", "origin/retrained")
    story.team.run(clone, sys.executable, "-m", "dvc", "pull")
    registration = json.loads((clone / "data/08_reporting/line/registration.json").read_text())
    assert str(registration["version"]) == "3"
    assert (clone / "data/06_models/line/pipeline/model_index.json").is_file()


def test_the_rollback_restores(story: Story) -> None:
    clone = story.team.clone()
    story.team.run(
        clone, sys.executable, "-m", "kedro", "run", "--pipelines", "rollback",
        "--params", "rollback.reason=false alarms on bolts",
    )  # fmt: skip
    assert story.team.aliases()["champion"] == "1"


@pytest.fixture
def small_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed project without data."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for name in ("dvc.yaml", "pyproject.toml", ".dvc/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "line")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "line@example.org")
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "All"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


class Branches:
    """A project whose branch `retrained` has a lock and a line of the audit log of its own."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.log = project / "data/08_reporting/line/promotion_log.jsonl"
        self.log.parent.mkdir(parents=True)
        self.commit("old", "1")
        self.git("branch", "--move", "main")
        self.git("checkout", "--quiet", "-b", "retrained")
        self.commit("retrained", "1", "3")
        self.git("checkout", "--quiet", "main")

    def git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.project, check=True)

    def commit(self, lock: str, *moments: str) -> None:
        (self.project / "dvc.lock").write_text(f"{lock}\n")
        self.log.write_text("".join(f'{{"at": "{moment}"}}\n' for moment in moments))
        self.git("add", "--force", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", lock)

    def after_continuing(self) -> tuple[str, list[str]]:
        """Lock and moments in the audit log."""
        reports = self.log.parent
        files = Files(self.project / "dvc.yaml", reports, self.log, *[reports / "x"] * 4)
        _take_lock(self.project, "retrained", files)
        lines = [json.loads(line)["at"] for line in self.log.read_text().splitlines()]
        return (self.project / "dvc.lock").read_text().strip(), lines


@pytest.fixture
def branches(small_project: Path) -> Branches:
    return Branches(small_project)


def test_a_branch_that_is_not_merged_goes_on(branches: Branches) -> None:
    assert branches.after_continuing() == ("retrained", ["1", "3"])


def test_a_line_of_the_audit_log_on_main_is_never_lost(branches: Branches) -> None:
    branches.commit("old", "1", "2")  # a rollback by hand
    assert branches.after_continuing() == ("retrained", ["1", "2", "3"])


def test_a_branch_that_was_squashed_is_left_alone(branches: Branches) -> None:
    branches.git("merge", "--quiet", "--squash", "retrained")
    branches.git("commit", "--quiet", "--message", "Retrained (squashed)")
    branches.commit("newer", "1", "3", "4")
    assert branches.after_continuing() == ("newer", ["1", "3", "4"])


@pytest.mark.parametrize("missing", ["dvc.yaml", "pyproject.toml", ".git"])
def test_the_wrong_folder_is_named(small_project: Path, missing: str) -> None:
    shutil.rmtree(small_project / missing, ignore_errors=True)
    (small_project / missing).unlink(missing_ok=True)
    with pytest.raises(ConfigurationError, match=str(small_project)):
        retrain(small_project)


@pytest.mark.parametrize(
    ("file", "message"),
    [("dvc.yaml", "uncommitted changes"), (".git/index.lock", r"remove .*/\.git/index\.lock")],
)
def test_nothing_is_committed_over_changes_or_beside_a_killed_git(
    small_project: Path, file: str, message: str
) -> None:
    (small_project / file).write_text("stages: {}\n")
    with pytest.raises(ConfigurationError, match=message):
        retrain(small_project, commit=True)


def test_what_a_killed_retraining_has_left_is_taken_up(
    branches: Branches, monkeypatch: pytest.MonkeyPatch
) -> None:
    (branches.project / "dvc.lock").write_text("half\n")
    branches.log.write_text("")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # which is asked after that
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConfigurationError, match="does not answer"):
        retrain(branches.project, commit=True)


def test_a_commit_needs_somebody(small_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{role}_NAME")
        monkeypatch.delenv(f"GIT_{role}_EMAIL")
    git = ["git", "config", "user.useConfigOnly", "true"]
    subprocess.run(git, cwd=small_project, check=True)
    with pytest.raises(ConfigurationError, match=r"user\.name"):
        retrain(small_project, commit=True)


def test_a_server_that_is_away_is_noticed_first(
    small_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConfigurationError, match="does not answer") as caught:
        retrain(small_project)
    assert "secret" not in str(caught.value)
