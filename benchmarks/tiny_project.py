"""A project whose every stage takes a second: a few images of 64 pixels, two training steps."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.preloaded import Preloaded

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "tests" / "contract" / "fixtures"  # a few images, a tiny autoencoder
DATASET = "elpv"  # whose paths the documentation names
MODEL = f"decodiff-{DATASET}"
REPORTS = f"08_reporting/{DATASET}"
COPIED = (".dvc/config", ".dvc/plots", ".dvcignore", ".gitignore", ".telemetry", "conf",
          "pyproject.toml", "src")  # fmt: skip
PARAMETERS: dict[str, dict[str, Any]] = {
    "globals": {"dataset": DATASET},
    "parameters_data": {
        "data": {"layout": "mvtec", "workers": 1, "val_fraction": 0.25,
                 "calibration_fraction": 0.25},
    },
    "parameters_validation": {"validation": {"min_train_images": 1}},
    "parameters_caching": {
        "preprocessing": {"resize": 32, "image_size": 32},
        "autoencoder": {"source": str(FIXTURES / "autoencoder")},
        "latent_cache": {"views": 1, "batch_size": 16},
    },
    "parameters_visibility": {"visibility": {"images": 2, "sizes": [1, 2], "pictures": 1}},
    "parameters_training": {
        "training": {"steps": 2, "batch_size": 4, "optimizer": "adamw", "progress_bar": False,
                     "resume": "if_same"},
    },
    "parameters_compute": {"compute": {"processes": 1, "threads": 1}},
    "parameters_evaluation": {
        "evaluation": {"resamples": 100, "review_images": 0, "synthetic_images": 2,
                       "gallery_images": 8},
    },
    "parameters_promotion": {
        "promotion": {"resamples": 100, "serving": {"images": 2, "latency_ms": None}},
    },
}  # fmt: skip


class Broken(Exception):
    """Something did not hold."""


class Project:
    """A clone of the project with a tiny configuration.

    Args:
        folder: Made by this.
        preloaded: Runs its commands; given later where it is to start in this folder.
        uri: Of MLflow's store.
    """

    def __init__(self, folder: Path, uri: str, preloaded: Preloaded | None = None) -> None:
        self.folder, self.uri, self.preloaded = folder, uri, preloaded
        self.data = folder / "data"
        self.log = self.data / REPORTS / "promotion_log.jsonl"

    @classmethod
    def make(cls, folder: Path, uri: str, changed: dict[str, Any] | None = None) -> Project:
        """Copy the code, set the parameters, and put the images of the fixtures there.

        Args:
            folder: Made by this.
            uri: Of MLflow's store.
            changed: Other parameters than `PARAMETERS`, by group.
        """
        for name in COPIED:
            source, target = ROOT / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                ignored = shutil.ignore_patterns("*.egg-info", "__pycache__")
                shutil.copytree(source, target, ignore=ignored)
            else:
                shutil.copy(source, target)
        for name, groups in PARAMETERS.items():
            file = folder / "conf" / "base" / f"{name}.yml"
            settings = yaml.safe_load(file.read_text())
            for group, values in groups.items():
                more = (changed or {}).get(group, {})
                one = isinstance(values, dict)
                settings[group] = {**settings[group], **values, **more} if one else values
            file.write_text(yaml.safe_dump(settings))
        shutil.copytree(FIXTURES / "raw", folder / "data" / "01_raw" / DATASET)
        return cls(folder, uri)

    def variables(self) -> dict[str, str]:
        """Of every command."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DECODIFF_"))}
        people = {f"GIT_{who}_{what}": "line@example.org" for who in ("AUTHOR", "COMMITTER")
                  for what in ("NAME", "EMAIL")}  # fmt: skip
        given = {
            **kept, **people,
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "DVC_SITE_CACHE_DIR": str(self.folder.parent / "site"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "DO_NOT_TRACK": "true",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT))),
        }  # fmt: skip
        if self.preloaded is None:
            given["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{given['PATH']}"
            return given
        return self.preloaded.environment(given)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command; what it prints is in the file ``output``."""
        with (self.folder.parent / f"{self.folder.name}.out").open("wb") as output:
            return subprocess.Popen(
                command, cwd=self.folder, env=self.variables(), stdout=output, stderr=output,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def output(self) -> str:
        """What the last command printed."""
        return (self.folder.parent / f"{self.folder.name}.out").read_text("utf-8", "replace")

    def wait(self) -> None:
        """Wait until nothing runs any more of commands that were killed."""
        if self.preloaded is not None:
            self.preloaded.wait()

    def run(self, *command: str, timeout: float = 1800) -> str:
        """Run a command to its end.

        Returns:
            The sentence of its error; empty where it ended well.

        Raises:
            Broken: It ended with a traceback, or not at all.
        """
        process = self.start(*command)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            kill(process)
            raise Broken(f"{' '.join(command)} took more than {timeout:.0f} s") from None
        printed = self.output()
        if "Traceback (most recent call last)" in printed:
            raise Broken(f"{' '.join(command)}: a traceback: {printed[-1500:]}")
        if code == 0:
            return ""
        found = re.findall(r"^(?:.*ERROR +|Error: )(.*)$", printed, flags=re.MULTILINE)
        return str(found[-1]) if found else f"exit code {code}: {printed[-300:]}"

    def must(self, *command: str) -> None:
        """Run a command that has to end well."""
        if sentence := self.run(*command):
            raise Broken(f"{' '.join(command)}: {sentence}\n{self.output()[-3000:]}")

    def lines(self) -> list[dict[str, Any]]:
        """The audit log."""
        text = self.log.read_text() if self.log.is_file() else ""
        return [json.loads(line) for line in text.splitlines()]

    def digests(self) -> dict[str, str]:
        """SHA-256 of every file below ``data`` by its path."""
        return {
            path.relative_to(self.data).as_posix(): digest(path, *identity(path.stat()))
            for path in self.data.rglob("*")
            if path.is_file()
        }

    def aliases(self) -> dict[str, str]:
        """Version numbers by alias."""
        from mlflow import MlflowClient

        found = MlflowClient(self.uri, self.uri).get_registered_model(MODEL).aliases
        return {alias: str(number) for alias, number in found.items()}

    def check_reports(self) -> None:
        """Every report and table is complete."""
        for path in (self.data / REPORTS).rglob("*.json"):
            json.loads(path.read_text())
        for path in self.data.rglob("*.parquet"):
            if not path.name.startswith("."):
                pd.read_parquet(path)

    def check_registry(self) -> str | None:
        """The champion's files are the registered ones, the database is sound.

        Returns:
            The champion's number, if there is one.
        """
        import mlflow

        from decodiff_pipeline.serving.served_version import differing

        mlflow.set_tracking_uri(self.uri)
        champion = self.aliases().get("champion")
        if champion is not None:
            tags = mlflow.MlflowClient().get_model_version(MODEL, champion).tags
            with tempfile.TemporaryDirectory() as folder:
                mlflow.artifacts.download_artifacts(f"models:/{MODEL}/{champion}", dst_path=folder)
                if changed := differing(Path(folder), tags):
                    raise Broken(f"files of the champion, version {champion}, changed: {changed}")
        database = self.uri.removeprefix("sqlite:///")
        if database != self.uri:
            with contextlib.closing(sqlite3.connect(database)) as connection:
                if connection.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                    raise Broken("the SQLite database is damaged")
        return champion


def identity(file: os.stat_result) -> tuple[int, ...]:
    """Changes where a file does."""
    return file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns


@functools.cache
def digest(path: Path, *_: int) -> str:
    """SHA-256 of a file, which is read once while its `identity` stays."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kill(process: subprocess.Popen[bytes]) -> bool:
    """Kill a command with its processes; returns whether it was still running."""
    running = process.poll() is None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running


def unexplained(lines: Iterable[dict[str, Any]], champion: str | None) -> list[str]:
    """What an audit log does not explain: transitions that do not follow one another.

    A line that was written twice, since its run was killed in between, counts once.

    Args:
        lines: Of the log, in any order.
        champion: The version that is champion now.
    """
    current, seen, found = None, set(), []
    for line in sorted(lines, key=lambda line: str(line["at"])):
        if line["outcome"] not in ("promoted", "overridden", "rolled back"):
            continue
        move = (line["at"], line["action"], line["from_version"], line["to_version"])
        if move in seen:
            continue
        seen.add(move)
        if line["from_version"] != current:
            found.append(f"{move}, but version {current} was champion")
        current = line["to_version"]
    if current != champion:
        found.append(f"version {champion} is champion, and by the log it is {current}")
    return found


def wait_until(seconds: float, process: subprocess.Popen[bytes]) -> None:
    """Wait for a process, at most so long."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
