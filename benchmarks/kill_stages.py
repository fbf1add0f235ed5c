"""The stages of the loop killed at random moments, and what each kill left behind.

``python -m benchmarks.kill_stages --kills 30 --seed 0`` makes a project with a tiny trained model,
and then runs validation, caching, evaluation, registration, promotion and rollback in turn. Each is
killed (SIGKILL, with all its processes) at a uniformly random moment of its usual length, checked,
run again to its end, and checked again:

- files of other stages are as they were, and every report is absent, the old one or complete;
- ``champion`` is what it was or what the stage makes it, and its files have the digest of its tag;
- no line of the audit log is lost, and the SQLite database is sound;
- the next run ends well, and makes what it makes without a kill, or says what to do.

It uses the MLflow server of ``MLFLOW_TRACKING_URI`` (`deploy/server.sh` starts one on PostgreSQL),
else SQLite in the project, prints one JSON line, and returns 1 where something did not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from decodiff_pipeline.data.latent_cache import LatentCache
from decodiff_pipeline.deco.digests import sha256_of
from decodiff_pipeline.errors import DecodiffError

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

ROOT = Path(__file__).parents[1]
DATASET = "elpv"  # whose paths are the default
MODEL = f"decodiff-{DATASET}"
FIXTURES = ROOT / "tests" / "contract" / "fixtures"  # a few images, a tiny autoencoder
FORKS = multiprocessing.get_context("forkserver")  # libraries are imported once
PRELOADED = ["decodiff_pipeline.training.setup", "decodiff_pipeline.registry.registration",
             "great_expectations", "mlflow", "kedro.framework.session", "matplotlib.figure",
             "sklearn.metrics"]  # fmt: skip
PARAMETERS: dict[str, dict[str, Any]] = {
    "data": {"layout": "mvtec", "workers": 1, "val_fraction": 0.25, "calibration_fraction": 0.25},
    "validation": {"min_train_images": 1},
    "preprocessing": {"resize": 32, "image_size": 32},
    "autoencoder": {"source": str(FIXTURES / "autoencoder")},
    "latent_cache": {"views": 2, "batch_size": 4},
    "training": {"steps": 2, "batch_size": 4, "progress_bar": False},
    "evaluation": {"resamples": 100, "review_images": 0, "synthetic_images": 4},
    "promotion": {"resamples": 100, "serving": {"images": 2}, "override_reason": "a trial"},
    "rollback": {"reason": "a trial"},
}


class Stage(NamedTuple):
    """A pipeline that is killed.

    Attributes:
        removed: What it has made before and shall make anew, below ``data``.
        written: What else it writes there; all other files must stay as they are.
    """

    pipeline: str
    removed: tuple[str, ...]
    written: tuple[str, ...]


REPORTS = f"08_reporting/{DATASET}"
STAGES = (
    Stage("data_validation", (), ("02_intermediate", "03_primary", f"{REPORTS}/validation")),
    Stage("latent_caching", ("04_feature",), ()),
    Stage(
        "evaluation",
        ("07_model_output",),
        (REPORTS, f"06_models/{DATASET}/thresholds", f"06_models/{DATASET}/monitoring"),
    ),
    Stage("registration", (), (f"{REPORTS}/registration",)),
    Stage("promotion", (), (f"{REPORTS}/promotion", f"07_model_output/{DATASET}/promotion")),
    Stage("rollback", (), (f"{REPORTS}/rollback", f"{REPORTS}/promotion_log")),
)


class Broken(Exception):
    """Something did not hold."""


class Project:
    """A project folder with a tiny trained model, and the registry that it writes to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.max_pixels = 40_000_000  # other limits make another version of the same model
        self.data = folder / "data"
        self.log = self.data / REPORTS / "promotion_log.jsonl"
        for name in ("conf", "pyproject.toml", "src", ".telemetry"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)
        shutil.copytree(FIXTURES / "raw", self.data / "01_raw" / DATASET)

    def start(self, pipelines: str) -> BaseProcess:
        """Start a run in a process of its own, which leads a group."""
        parameters = {**PARAMETERS, "registration": {"max_pixels": self.max_pixels}}
        said = self.folder / "said.json"
        said.unlink(missing_ok=True)
        process = FORKS.Process(target=run, args=(self.folder, pipelines, parameters, said))
        process.start()
        return process

    def finish(self, pipelines: str) -> tuple[float, str]:
        """Run to the end; returns the seconds, and what an error said."""
        began = time.perf_counter()
        process = self.start(pipelines)
        process.join()
        said = self.folder / "said.json"
        if not said.is_file():
            msg = f"{pipelines} ended with exit code {process.exitcode} and a traceback"
            raise Broken(msg)
        return time.perf_counter() - began, json.loads(said.read_text())

    def digests(self) -> dict[str, str]:
        """SHA-256 of every file below ``data`` by its path."""
        return {
            path.relative_to(self.data).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.data.rglob("*")
            if path.is_file()
        }

    def lines(self) -> list[str]:
        """The audit log."""
        return self.log.read_text().splitlines() if self.log.is_file() else []

    def aliases(self) -> dict[str, str]:
        from mlflow import MlflowClient

        found = MlflowClient().get_registered_model(MODEL).aliases
        return {alias: str(number) for alias, number in found.items()}


def run(folder: Path, pipelines: str, parameters: dict[str, Any], said: Path) -> None:
    """Run pipelines as `kedro run` does, and write down that it ended, or the error's sentence."""
    os.setsid()
    os.chdir(folder)
    with (folder / "output").open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project

    bootstrap_project(folder)
    sentence = ""
    try:
        with KedroSession.create(folder, runtime_params=parameters) as session:
            session.run(pipeline_names=pipelines.split(","))
    except DecodiffError as error:
        sentence = str(error)
    said.write_text(json.dumps(sentence))


def kill(process: BaseProcess) -> bool:
    """Kill a run with all its processes; returns whether it was still running."""
    running = process.is_alive()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.kill()
    process.join()
    return running


def check_files(project: Project, stage: Stage, before: dict[str, str]) -> None:
    """Other stages' files are as they were; what is there can be read."""
    own = tuple(stage.written) + stage.removed
    for name, digest in before.items():
        if name.startswith(own) or name.startswith(f"{REPORTS}/promotion_log"):
            continue
        path = project.data / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise Broken(f"{name} of another stage was changed or lost")
    for path in (project.data / REPORTS).rglob("*.json"):
        json.loads(path.read_text())
    for path in project.data.rglob("*.parquet"):
        if not path.name.startswith("."):
            pd.read_parquet(path)


def check_log(project: Project, before: list[str]) -> None:
    """Lines are never lost nor halved."""
    now = project.lines()
    if now[: len(before)] != before:
        raise Broken("a line of the audit log was lost")
    for line in now:
        json.loads(line)


def made(project: Project, pipeline: str) -> str:
    """Digest of what a stage makes, whatever lies around it."""
    if pipeline == "latent_caching":
        cache = LatentCache(project.data / "04_feature" / DATASET / "latents")
        keys = sorted(set(cache.index()["key"]))
        reader = cache.reader(keys)  # one by one: masks have another shape
        parts = [part for row in range(len(keys)) for part in reader.moments([row])]
        return sha256_of([keys, *(part.numpy().tobytes().hex() for part in parts)])
    if pipeline == "data_validation":
        table = pd.read_parquet(project.data / "03_primary" / DATASET / "manifest.parquet")
        return sha256_of(table.astype(str).to_dict("records"))
    if pipeline == "evaluation":
        metrics = json.loads((project.data / REPORTS / "metrics.json").read_text())
        return sha256_of([metrics["categories"], metrics["mean"]])
    return ""


def check_registry(project: Project, allowed: set[str | None]) -> None:
    """The champion is one of those allowed, its files are the registered ones."""
    import mlflow

    from decodiff_pipeline.serving.served_version import differing

    champion = project.aliases().get("champion")
    if champion not in allowed:
        raise Broken(f"champion is version {champion}, and not one of {allowed}")
    if champion is not None:
        tags = mlflow.MlflowClient().get_model_version(MODEL, champion).tags
        with tempfile.TemporaryDirectory() as folder:
            mlflow.artifacts.download_artifacts(f"models:/{MODEL}/{champion}", dst_path=folder)
            if changed := differing(Path(folder), tags):
                raise Broken(f"files of the champion, version {champion}, changed: {changed}")
    database = project.folder / "mlflow.db"
    if database.is_file():
        with contextlib.closing(sqlite3.connect(database)) as connection:
            if connection.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                raise Broken("the SQLite database is damaged")


class Trial:
    """Stages that are killed in turn."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.project = Project(folder)
        self.draw = random.Random(seed)  # noqa: S311 (no secret)
        self.seconds: dict[str, float] = {}
        self.reference: dict[str, str] = {}
        self.kills: Counter[str] = Counter()
        self.said: Counter[str] = Counter()
        self.broken: list[str] = []

    def begin(self) -> None:
        """Train, and make the first champion; nothing is killed yet."""
        first = ("data_validation", "latent_caching", "training", "evaluation", "registration")
        for pipeline in (*first, "promotion"):
            self.seconds[pipeline], sentence = self.project.finish(pipeline)
            if sentence:
                raise Broken(f"{pipeline}: {sentence}")
        for stage in STAGES:
            self.reference[stage.pipeline] = made(self.project, stage.pipeline)

    def round(self, stage: Stage) -> None:
        """Kill a stage, check, run it again, check."""
        project, pipeline = self.project, stage.pipeline
        for name in stage.removed:
            shutil.rmtree(project.data / name, ignore_errors=True)
        files, lines, aliases = project.digests(), project.lines(), project.aliases()
        champion = aliases.get("champion")
        allowed: set[str | None] = {champion}
        allowed |= {"promotion": {aliases.get("challenger")},
                    "rollback": {aliases.get("previous")}}.get(pipeline, set())  # fmt: skip
        project.max_pixels += pipeline == "registration"
        usual = self.seconds.setdefault(pipeline, self.seconds["registration"])
        process = project.start(pipeline)
        process.join(self.draw.uniform(0, usual))
        if kill(process):
            self.kills[pipeline] += 1
        self.check(stage, files, lines, allowed)
        seconds, sentence = project.finish(pipeline)
        self.seconds[pipeline] = min(seconds, 2 * usual)
        if sentence:
            self.said[f"{pipeline}: {sentence}"] += 1
        elif pipeline in ("promotion", "registration"):
            alias = {"promotion": "champion", "registration": "challenger"}[pipeline]
            newest = project.aliases().get("challenger")
            if project.aliases().get(alias) != newest or newest == champion:
                raise Broken(f"{alias} is not the version that {pipeline} was to make it")
        self.check(stage, files, lines, allowed | {project.aliases().get("champion")})
        if self.reference[pipeline] != made(project, pipeline):
            raise Broken(f"{pipeline} made something else than without a kill")

    def check(
        self, stage: Stage, files: dict[str, str], lines: list[str], allowed: set[str | None]
    ) -> None:
        check_files(self.project, stage, files)
        check_log(self.project, lines)
        check_registry(self.project, allowed)

    def kill_until(self, kills: int) -> dict[str, Any]:
        """Go on until so many kills have hit; returns the record."""
        for stage in itertools.cycle(STAGES):
            if self.kills.total() >= kills:
                break
            try:
                self.round(stage)
            except (Broken, DecodiffError, ValueError, OSError) as error:
                self.broken.append(f"{stage.pipeline}: {error!r}")
            print(stage.pipeline, self.kills.total(), self.broken[-1:], file=sys.stderr, flush=True)
        return {
            "kills": self.kills.total(),
            "by_stage": dict(self.kills),
            "store": os.environ["MLFLOW_TRACKING_URI"].partition(":")[0],
            "aliases": self.project.aliases(),
            "audit_lines": len(self.project.lines()),
            "said": dict(self.said),
            "broken": self.broken,
        }


def main() -> int:
    """Print one JSON line; 0 where everything held."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.kill_stages")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        os.environ.update(
            PYTHONPATH=str(ROOT / "src"),
            DO_NOT_TRACK="true",
            MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
        )
        FORKS.set_forkserver_preload(PRELOADED)
        trial = Trial(Path(folder), options.seed)
        trial.begin()
        record = trial.kill_until(options.kills)
    print(json.dumps(record))
    return 0 if not record["broken"] else 1


if __name__ == "__main__":
    sys.exit(main())
