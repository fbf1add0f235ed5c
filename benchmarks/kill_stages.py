"""Stages of the loop killed at random moments, and what each kill left behind.

``python -m benchmarks.kill_stages --kills 100 --store sqlite --results kills.jsonl``, then the same
with ``--store postgresql`` (`deploy/server.sh`, needs Debian's ``postgresql``). A project with a
tiny trained model and three champions is made; then validation, caching, evaluation, registration,
promotion and rollback run in turn, and now and then a whole retraining with DVC. Each is killed
(SIGKILL, with all its processes) at a uniformly random moment of its usual length and checked. The
next run is killed as well with probability 0.4, or goes to its end and is checked:

- files of other stages are as they were, and every report is absent, the old one or complete;
- ``champion`` is what it was or what the stage makes it, and its files have the digest of its tag;
- no line of the audit log is lost, and at the end of the last run it explains every champion;
- a rollback goes back one version, a registration and a promotion do what they do without a kill;
- the last run ends well, and makes what it makes without a kill, or says what to do.

Every kill is a line of the results; a call with the same file goes on to the number asked for. It
prints a table, and returns 1 where something did not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.killed_stages import LOG, RETRAINING, STAGES, Stage, made
from benchmarks.preloaded import Preloaded
from benchmarks.tiny_project import (
    DATASET,
    FIXTURES,
    Broken,
    Project,
    kill,
    unexplained,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

RETRAININGS = 2  # rounds of the others for one of these, which takes ten times as long
HISTORY = 3  # champions before the first kill
AGAIN = 0.4  # share of the kills after which the next run is killed as well
OUTCOMES = ("killed", "killed again", "went on", "said what to do", "broken")


class State(NamedTuple):
    """What there was before a stage.

    Attributes:
        files: SHA-256 by path below ``data``.
        lines: Of the audit log.
        aliases: Version numbers by alias.
    """

    files: dict[str, str]
    lines: list[dict[str, Any]]
    aliases: dict[str, str]


class Trial:
    """Stages that are killed in turn."""

    def __init__(self, project: Project, seed: int) -> None:
        self.project = project
        self.draw = random.Random(seed)  # noqa: S311 (no secret)
        self.max_pixels = 40_000_000  # another limit makes another version of the same model
        self.images = 0
        self.seconds: dict[str, float] = {}
        self.reference: dict[str, str] = {}

    def command(self, stage: str) -> list[str]:
        """What is typed."""
        if stage == "retraining":
            return ["python", "-m", "decodiff_pipeline.retrain", "--commit"]
        given = {
            "registration": f"registration.max_pixels={self.max_pixels}",
            "rollback": "rollback.reason=a trial",
        }
        more = ["--params", given[stage]] if stage in given else []
        return ["kedro", "run", "--pipelines", stage, *more]

    def begin(self) -> None:
        """Train, make champions, and commit; nothing is killed yet."""
        for command in (
            ("git", "init", "--quiet", "--initial-branch", "main"),
            ("python", "-m", "decodiff_pipeline.dvc_stages"),
            ("dvc", "remote", "add", "--default", "storage", str(self.project.folder) + ".remote"),
            ("dvc", "add", "--quiet", f"data/01_raw/{DATASET}"),
            ("dvc", "push", "--quiet"),
        ):
            self.project.must(*command)
        for stage in ("data_validation", "latent_caching", "visibility", "training", "evaluation"):
            self.timed(stage)
        for _ in range(HISTORY):
            self.max_pixels += 1
            self.timed("registration")
            self.timed("promotion")
        self.project.must("python", "-m", "decodiff_pipeline.record")
        self.refresh()

    def timed(self, stage: str) -> None:
        began = time.perf_counter()
        self.project.must(*self.command(stage))
        self.seconds[stage] = time.perf_counter() - began

    def commit(self) -> None:
        self.project.must("git", "add", "--all")
        self.project.must("git", "commit", "--quiet", "--message", "State", "--allow-empty")

    def new_image(self) -> None:
        """Another training image, so that every stage of a retraining has something to do."""
        folder = self.project.data / "01_raw" / DATASET / "nut" / "train" / "good"
        data = (FIXTURES / "raw" / "nut" / "train" / "good" / "000.png").read_bytes()
        self.images += 1  # bytes after the end of a PNG make another file of the same picture
        (folder / f"new{self.images}.png").write_bytes(data + bytes([self.images % 256, 1]))
        self.project.must("dvc", "add", "--quiet", f"data/01_raw/{DATASET}")
        self.commit()

    def round(self, stage: Stage) -> Iterator[dict[str, Any]]:
        """Kill a stage, check, and again or run it to its end and check; gives a record a kill."""
        project = self.project
        for name in stage.removed:
            shutil.rmtree(project.data / name, ignore_errors=True)
        self.max_pixels += stage.name == "registration"
        if stage is RETRAINING:
            self.new_image()
        before = State(project.digests(), project.lines(), project.aliases())
        ended = False
        while not ended:
            record = {"stage": stage.name, "broken": "", "said": "", "again": False}
            started = time.perf_counter()
            try:
                record |= self.kill(stage)
                self.check(stage, before, self.allowed(stage, before.aliases))
                # A rollback that is in the log is over: the next one would be another.
                over = stage.name == "rollback" and project.lines() != before.lines
                record["again"] = record["hit"] and not over and self.draw.random() < AGAIN
                if not record["again"]:
                    record["said"] = self.finish(stage, before)
            except (Broken, ValueError, OSError) as error:
                record["broken"] = repr(error)
            record["seconds"] = round(time.perf_counter() - started, 1)
            ended = not record["again"]
            yield record

    def kill(self, stage: Stage) -> dict[str, Any]:
        """Start a stage, and kill it at a random moment."""
        usual = self.seconds.get(stage.name, 3 * self.seconds["evaluation"])
        usual = usual if stage.name != "rollback" else min(usual, self.seconds["registration"])
        after = self.draw.uniform(0, usual)
        process = self.project.start(*self.command(stage.name))
        wait_until(after, process)
        hit = kill(process)
        self.project.wait()
        return {"after": round(after, 2), "usual": round(usual, 2), "hit": hit}

    def finish(self, stage: Stage, before: State) -> str:
        """Run a stage that was killed to its end; returns what it said where it failed."""
        project = self.project
        done = len(project.lines()) > len(before.lines)
        began = time.perf_counter()
        said = project.run(*self.command(stage.name))
        lock = project.folder / ".git" / "index.lock"
        if said and str(lock) in said:  # what it says is done
            lock.unlink()
            project.must(*self.command(stage.name))
        self.seconds[stage.name] = time.perf_counter() - began
        self.check_result(stage, before.aliases, "" if str(lock) in said else said, done)
        champion = project.aliases().get("champion")
        self.check(stage, before, {champion})
        if found := unexplained(project.lines(), champion):
            raise Broken(f"the audit log does not explain: {found}")
        return said

    def allowed(self, stage: Stage, aliases: dict[str, str]) -> set[str | None]:
        """Which versions may be champion where a stage was killed."""
        after = {"promotion": "challenger", "rollback": "previous"}.get(stage.name, "champion")
        more = {str(int(aliases["challenger"]) + 1)} if stage is RETRAINING else set()
        return {aliases.get("champion"), aliases.get(after), *more}

    def check_result(self, stage: Stage, before: dict[str, str], said: str, done: bool) -> None:
        """What the second run has made of it."""
        aliases = self.project.aliases()
        champion, newest = aliases.get("champion"), aliases.get("challenger")
        if stage.name == "rollback":
            if not said and not done and champion != before.get("previous"):
                raise Broken(f"went back from {before} to version {champion}")
        elif stage.moves and not said:
            if int(newest or 0) != int(before["challenger"]) + (stage.name != "promotion"):
                raise Broken(f"challenger is version {newest} after {before}")
            if stage.name != "registration" and champion != newest:
                raise Broken(f"champion is version {champion}, and not {newest}")
        if self.reference.get(stage.name, "") != made(self.project, stage.name):
            raise Broken("it made something else than without a kill")

    def check(self, stage: Stage, before: State, allowed: set[str | None]) -> None:
        """What holds after every kill and every run."""
        now = self.project.digests()
        own = (*stage.written, *stage.removed, LOG)
        changed = [name for name, digest in before.files.items() if digest != now.get(name)]
        if others := [name for name in changed if not name.startswith(own)]:
            raise Broken(f"{others} of other stages were changed or lost")
        self.project.check_reports()
        if self.project.lines()[: len(before.lines)] != before.lines:
            raise Broken("a line of the audit log was lost")
        champion = self.project.check_registry() if stage.moves else None
        if stage.moves and champion not in allowed:
            raise Broken(f"champion is version {champion}, and not one of {allowed}")

    def refresh(self) -> None:
        """What is there now is right, and is committed."""
        self.commit()
        for stage in STAGES:
            self.reference[stage.name] = made(self.project, stage.name)


def order() -> Iterator[Stage]:
    """The stages for ever."""
    for number in itertools.count(1):
        yield from STAGES
        if number % RETRAININGS == 0:
            yield RETRAINING


@contextlib.contextmanager
def store(kind: str, home: Path) -> Iterator[str]:
    """URI of MLflow's store."""
    if kind == "sqlite":
        yield f"sqlite:///{home}/mlflow.db"
        return
    from tests.team.conftest import mlflow_server

    with mlflow_server(home / "server") as uri:
        yield uri


def read(path: Path) -> list[dict[str, Any]]:
    """The results so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def table(records: list[dict[str, Any]]) -> str:
    """Kills by stage and store, in Markdown, and what did not hold."""
    stores = sorted({one["store"] for one in records})
    rows = [
        ["stage", *(f"{store}: {name}" for store in stores for name in OUTCOMES)],
        ["---"] * (1 + len(OUTCOMES) * len(stores)),
    ]
    for stage in (*(one.name for one in STAGES), "retraining", "all"):
        row = [stage]
        for store in stores:
            hits = [one for one in records if one.get("hit") and one["store"] == store]
            found = Counter(outcome(one) for one in hits if stage in ("all", one["stage"]))
            row += [str(found.total()), *(str(found[name]) for name in OUTCOMES[1:])]
        rows.append(row)
    text = [f"| {' | '.join(row)} |" for row in rows]
    said = Counter(f"{one['stage']} said: {one['said']}" for one in records if one["said"])
    text += [f"{count} x {sentence}" for sentence, count in said.most_common()]
    text += [f"BROKEN {one['store']} {one['stage']}: {one['broken']}"
             for one in records if one["broken"]]  # fmt: skip
    return "\n".join(text)


def outcome(record: dict[str, Any]) -> str:
    """What the run after a kill did."""
    if record["broken"]:
        return "broken"
    if record.get("again"):
        return "killed again"
    return "said what to do" if record["said"] else "went on"


def main() -> int:
    """Kill until so many kills are in the results; 0 where everything held."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.kill_stages")
    parser.add_argument("--kills", type=int, default=100, help="of this store, earlier ones too")
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--results", type=Path, default=Path("kills.jsonl"))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # cleans up
    wanted = [one for one in read(options.results) if one["store"] == options.store]
    hits = sum(one["hit"] for one in wanted)
    home = Path(tempfile.mkdtemp(prefix="kill"))
    home.chmod(0o755)  # PostgreSQL's account enters it
    preloaded = None
    try:
        with store(options.store, home) as uri:
            if hits < options.kills:
                project = Project.make(
                    home / "line", uri, {"promotion": {"override_reason": "a trial"}}
                )
                project.preloaded = preloaded = Preloaded(home / "p", project.folder)
                trial = Trial(project, seed=len(wanted))
                trial.begin()
            for stage in order():
                if hits >= options.kills:
                    break
                for record in trial.round(stage):
                    one = {"store": options.store, **record}
                    hits += one.get("hit", False)
                    with options.results.open("a") as file:
                        file.write(json.dumps(one) + "\n")
                    print(hits, one, file=sys.stderr, flush=True)
                if stage is RETRAINING:
                    trial.refresh()
    finally:
        if preloaded is not None:
            preloaded.close()
        shutil.rmtree(home, ignore_errors=True)
    records = read(options.results)
    print(table(records))
    return int(any(one["broken"] for one in records))


if __name__ == "__main__":
    sys.exit(main())
