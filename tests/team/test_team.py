"""The loop on a team's back end: PostgreSQL behind MLflow, a DVC remote over SSH, two at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import yaml
from mlflow import MlflowClient
from tests.test_retraining import Team

if TYPE_CHECKING:
    from pathlib import Path

    from tests.team.conftest import Backend

pytestmark = pytest.mark.slow

REPORTS = "data/08_reporting/line"
# Registers a version, waits until the other has judged as well, and promotes.
REGISTER_AND_PROMOTE = """
import sys
from mlflow import MlflowClient
from decodiff_pipeline.registry.config import PromotionConfig
from decodiff_pipeline.registry.promotion import Judgement, promote
from decodiff_pipeline.registry.versions import Registry

number = str(MlflowClient().create_model_version("decodiff-race", sys.argv[1]).version)
registry = Registry("decodiff-race")
registry.point("challenger", number)
judgement = Judgement(registry.version(number), registry.champion(), [], [], "")
print(number, flush=True)
sys.stdin.readline()
print(promote(judgement, PromotionConfig(), {})["outcome"], flush=True)
"""


class Colleagues(Team):
    """Clones that share an MLflow server and a DVC remote over SSH."""

    def __init__(self, home: Path, backend: Backend) -> None:
        super().__init__(home, backend.uri)
        self.environment["HOME"] = str(backend.home)  # for the SSH configuration and key
        (home / "desk").mkdir()
        self.found()
        self.dvc("remote", "modify", "storage", "url", backend.remote)
        self.set("parameters_evaluation", "evaluation", synthetic_images=4, resamples=100)
        serving = {"images": 2, "latency_ms": None}
        self.set("parameters_promotion", "promotion", resamples=100, serving=serving)

    def set(self, file: str, section: str, **values: object) -> None:
        """Change parameters at the desk."""
        path = self.desk / "conf" / "base" / f"{file}.yml"
        settings = yaml.safe_load(path.read_text())
        settings[section].update(values)
        path.write_text(yaml.safe_dump(settings))

    def retrain_and_push(self) -> Path:
        """As cron does it, in a clone without artifacts."""
        folder = self.clone()
        self.run(folder, sys.executable, "-m", "decodiff_pipeline.retrain", "--commit")
        self.run(folder, "git", "push", "--quiet", "origin", "HEAD:main")
        self.run(self.desk, "git", "pull", "--quiet", "--ff-only", "origin", "main")
        return folder


def report(clone: Path, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((clone / REPORTS / name).read_text())
    return found


@dataclass(frozen=True)
class Story:
    team: Colleagues
    first: Path
    second: Path
    aliases: list[dict[str, str]]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Story:
    """An empty registry and an empty remote; then better images of nuts, and a new category."""
    team = Colleagues(tmp_path_factory.mktemp("colleagues"), backend)
    team.deliver(nut=True)
    first = team.retrain_and_push()
    aliases = [team.aliases()]
    team.deliver(nut=False, bolt=False)
    second = team.retrain_and_push()
    return Story(team, first, second, [*aliases, team.aliases()])


def test_the_first_model_of_an_empty_registry_is_promoted(story: Story) -> None:
    assert story.aliases[0] == {"champion": "1", "challenger": "1"}
    assert report(story.first, "promotion.json")["outcome"] == "promoted"


def test_new_data_give_a_new_champion(story: Story) -> None:
    assert report(story.second, "promotion.json")["outcome"] == "promoted"
    assert story.aliases[1] == {"champion": "2", "challenger": "2", "previous": "1"}
    log = (story.second / REPORTS / "promotion_log.jsonl").read_text().splitlines()
    assert [json.loads(line)["to_version"] for line in log] == ["1", "2"]


def test_another_clone_gets_data_and_model_over_ssh(story: Story, backend: Backend) -> None:
    clone = story.team.clone()
    story.team.run(clone, sys.executable, "-m", "dvc", "pull")
    model = "data/06_models/line/pipeline/unet/diffusion_pytorch_model.safetensors"
    assert (clone / model).read_bytes() == (story.second / model).read_bytes()
    assert (clone / "data/01_raw/line/bolt/train/good/00.png").is_file()
    assert report(clone, "registration.json")["version"] == "2"
    assert {path.name for path in backend.storage.iterdir()} == {"files"}


def test_two_machines_register_and_promote_at_once_and_no_alias_is_lost(
    backend: Backend, tmp_path: Path
) -> None:
    client = MlflowClient(backend.uri, registry_uri=backend.uri)
    client.create_registered_model("decodiff-race")
    client.create_model_version("decodiff-race", "s3://models/1")  # nothing is read from there
    client.set_registered_model_alias("decodiff-race", "champion", "1")
    machines = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        machines.append(
            subprocess.Popen(
                [sys.executable, "-c", REGISTER_AND_PROMOTE, f"s3://models/{name}"],
                cwd=tmp_path / name,
                # Files that keep processes of one machine apart lie here.
                env={**os.environ, "MLFLOW_TRACKING_URI": backend.uri,
                     "TMPDIR": str(tmp_path / name)},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
    numbers = []
    for process in machines:
        assert process.stdout is not None
        numbers.append(process.stdout.readline().strip())
    for process in machines:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outcomes = [process.communicate(timeout=300)[0].strip() for process in machines]
    assert sorted(numbers) == ["2", "3"]
    assert sorted(outcomes) == ["outdated", "promoted"]
    aliases = client.get_registered_model("decodiff-race").aliases
    assert aliases.pop("challenger") in numbers
    assert aliases == {"champion": numbers[outcomes.index("promoted")], "previous": "1"}


@pytest.mark.skipif(os.geteuid() != 0, reason="PostgreSQL is another account's only as root")
def test_the_server_does_not_run_postgresql_as_root(backend: Backend) -> None:
    data = backend.home / "server" / "postgres"
    assert data.stat().st_uid != 0
    assert data.stat().st_mode & 0o077 == 0
