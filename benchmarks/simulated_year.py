"""A year of weekly retrainings by the documented cron line, with what happens in a year.

``python -m benchmarks.simulated_year --weeks 52 --results year.jsonl --folder ../year`` makes a
Git server, a DVC remote, an MLflow server on PostgreSQL (`deploy/server.sh`), a desk where people
change images, and two machines that retrain a tiny model. Each week images are added, removed,
spoilt, repaired or relabelled, or nothing happens. In some weeks the server is away or stops
half-way, both machines retrain at once, or a person rolls back. Then the cron line of
docs/retraining.md runs.

Every week the audit log in Git has to explain each champion, the champion's files have to be the
registered ones, and an idle week commits nothing. The same call goes on after the last week in the
results. At the end sizes are printed, the clean-up of docs/retraining.md runs, and sizes are
printed again. Commands run in forks of one process (`benchmarks.preloaded`). It returns 1 where
something did not hold.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.team.conftest import mlflow_server

from benchmarks.changing_images import ChangingImages
from benchmarks.documented_commands import BLOCK, statements
from benchmarks.preloaded import Preloaded
from benchmarks.tiny_project import DATASET, MODEL, ROOT, Broken, Project, unexplained

EVENTS = ("add", "add", "remove", "spoil", "repair", "relabel", "nothing")
TROUBLE = {3: "server away", 5: "two at once", 7: "rollback", 9: "server stops",
           19: "two at once", 23: "server away", 29: "rollback", 35: "server stops",
           41: "two at once", 46: "rollback"}  # fmt: skip
POINTER = f"data/01_raw/{DATASET}.dvc"
GATES: dict[str, Any] = {
    "baseline": {"improvement": {}, "regression": {}}, "floors": {}, "min_calibration_images": 0,
    "false_positive_rate": 1, "false_positive_significance": 1e-12,
    "champion": {"improvement": {"image_auroc": 0.0}, "regression": {"image_auroc": 0.5},
                 "by_category": {}, "within_noise": "pass"},
}  # fmt: skip


def cron_line(clone: Path, uri: str) -> str:
    """The command of docs/retraining.md, for a clone."""
    text = (ROOT / "docs" / "retraining.md").read_text("utf-8")
    found = re.search(r"^17 2 \* \* 1 +(.*)$", text, flags=re.MULTILINE)
    if found is None:
        raise Broken("docs/retraining.md has no cron line")
    places = {"/srv/decodiff-pipeline": str(clone), "https://mlflow.example.org": uri,
              ">> /var/log/retrain.log 2>&1": ""}  # fmt: skip
    line = found[1]
    for old, new in places.items():
        if old not in line:
            raise Broken(f"the cron line has no {old}")
        line = line.replace(old, new)
    return line


class Year:
    """The desk, two machines, and the servers."""

    def __init__(self, home: Path, seed: int, kept: int) -> None:
        self.home, self.seed, self.kept = home, seed, kept
        self.draw = random.Random(seed)  # noqa: S311 (no secret)
        self.running = ExitStack()
        begun = (home / "b").is_dir()
        self.desk = (
            Project(home / "desk", "")
            if begun
            else Project.make(home / "desk", "", {"promotion": GATES})
        )
        shutil.rmtree(home / "p", ignore_errors=True)
        self.preloaded = self.desk.preloaded = Preloaded(home / "p", self.desk.folder)
        self.images = ChangingImages(self.desk.data / "01_raw" / DATASET, self.draw)
        self.start_server()
        if not begun:
            self.found()
        self.machines = [self.machine(name) for name in ("a", "b")]

    def start_server(self) -> None:
        """Start MLflow, on another port each time; clients are told."""
        self.uri = self.running.enter_context(mlflow_server(self.home / "server"))
        for project in (self.desk, *getattr(self, "machines", ())):
            project.uri = self.uri

    def found(self) -> None:
        """Commit the project, and store its images."""
        for command in (
            "git init --quiet --initial-branch main",
            f"git init --quiet --bare --initial-branch main {self.home}/origin.git",
            f"git remote add origin {self.home}/origin.git",
            f"dvc remote add --default storage {self.home}/remote",
            "python -m decodiff_pipeline.dvc_stages",
        ):
            self.desk.must(*command.split())
        shutil.copy(ROOT / ".gitattributes", self.desk.folder)
        self.publish("The project")

    def machine(self, name: str) -> Project:
        """A clone with an environment, if it is not there yet."""
        folder = self.home / name
        if not folder.is_dir():
            self.desk.must("git", "clone", "--quiet", f"{self.home}/origin.git", str(folder))
            (folder / ".venv").mkdir()
            (folder / ".venv" / "bin").symlink_to(self.preloaded.programs)
        return Project(self.home / name, self.uri, self.preloaded)

    def publish(self, message: str) -> None:
        """Commit the images of the desk."""
        for command in (
            ("dvc", "add", "--quiet", f"data/01_raw/{DATASET}"),
            ("dvc", "push", "--quiet", POINTER),
            ("git", "add", "--all"),
            ("git", "commit", "--quiet", "--message", message),
            ("git", "pull", "--quiet", "--rebase", "origin", "main"),
            ("git", "push", "--quiet", "origin", "HEAD:main"),
        ):
            empty = command[1] == "pull" and not any(
                (self.home / "origin.git/refs/heads").iterdir()
            )
            if not empty:
                self.desk.must(*command)

    def change(self, event: str) -> None:
        """Let something happen to the images, and publish it."""
        category = self.images.change(event)
        if category and self.desk.run("dvc", "status", "--quiet", POINTER):
            self.publish(f"{category}: {event}")

    def week(self, number: int) -> dict[str, Any]:
        """One week; returns its record."""
        began = time.perf_counter()
        self.draw.seed(f"{self.seed} {number}")
        self.images.made = 100 * number
        trouble = TROUBLE.get(number, "")
        event = "add" if trouble == "two at once" else self.draw.choice(EVENTS)
        self.change(event)
        before = self.head()
        said = self.retrain(trouble)
        champion = self.machines[0].check_registry()
        self.machines[0].must("git", "pull", "--quiet", "--rebase")
        lines = self.machines[0].lines()
        if found := unexplained(lines, champion):
            raise Broken(f"the audit log does not explain: {found}")
        moved = self.head() != before
        if event == "nothing" and moved and not trouble and number > 1:
            raise Broken("an idle week has committed something")
        return {
            "week": number, "event": event, "trouble": trouble, "said": said,
            "champion": champion, "lines": len(lines), "committed": moved,
            "sizes": self.sizes(), "seconds": round(time.perf_counter() - began),
        }  # fmt: skip

    def attempt(self, number: int) -> dict[str, Any]:
        """One week; where something did not hold, the record says so and the outputs are kept."""
        try:
            return self.week(number)
        except (Broken, OSError, ValueError) as error:
            for output in self.home.glob("*.out"):
                shutil.copy(output, output.with_suffix(f".week{number}"))
            return {"week": number, "broken": str(error)}

    def head(self) -> str:
        self.desk.must("git", "ls-remote", "origin", "main")
        return self.desk.output().split()[0]

    def retrain(self, trouble: str) -> list[str]:
        """Run the cron line, on one machine or both; returns what each said at last."""
        machines = self.machines if trouble == "two at once" else self.machines[:1]
        if trouble == "rollback":
            self.roll_back()
        if trouble == "server away":
            self.running.close()
        processes = []
        for machine in machines:
            if processes:  # the second sees newer images than the first
                time.sleep(3)
                self.change("add")
            processes.append(machine.start("bash", "-c", cron_line(machine.folder, machine.uri)))
        if trouble == "server stops":
            time.sleep(self.draw.uniform(5, 40))
            self.running.close()
        for process in processes:
            process.wait(1800)
        if trouble.startswith("server"):
            self.start_server()
        return [self.outcome(machine) for machine in machines]

    def outcome(self, machine: Project) -> str:
        """What a machine's run said; a conflict is resolved as documented."""
        printed = machine.output()
        if "Traceback (most recent call last)" in printed:
            raise Broken(f"a traceback: {printed[-2000:]}")
        if (machine.folder / ".git" / "rebase-merge").exists():
            text = (ROOT / "docs" / "retraining.md").read_text("utf-8")
            resolve = re.search(r"^git rebase --abort; .*$", text, flags=re.MULTILINE)
            machine.must("bash", "-c", resolve[0] if resolve else "false")
        found = re.findall(rf"^(?:Error: .*|{MODEL}: .*)$", printed, flags=re.MULTILINE)
        if not found:
            raise Broken(f"it said nothing: {printed[-2000:]}")
        return str(found[-1])

    def roll_back(self) -> None:
        """A person takes the champion back, and commits the audit log."""
        machine = self.machines[0]
        machine.must("git", "pull", "--quiet", "--rebase")
        reason = "rollback.reason=false alarms on line 3"
        said = machine.run("kedro", "run", "--pipelines", "rollback", "--params", reason)
        if not said:
            machine.must("git", "commit", "--quiet", "--all", "--message", "Rollback")
            machine.must("git", "push", "--quiet")

    # --- what it leaves

    def sizes(self) -> dict[str, float]:
        """Megabytes of what grows."""
        places = {"Git repository": "origin.git", "DVC remote": "remote",
                  "DVC cache of a machine": "a/.dvc/cache", "database": "server/postgres",
                  "MLflow artifacts": "server/artifacts"}  # fmt: skip
        return {name: round(megabytes(self.home / place), 1) for name, place in places.items()}

    def clean_up(self) -> None:
        """The section "What a year leaves" of docs/retraining.md."""
        text = (ROOT / "docs" / "retraining.md").read_text("utf-8")
        section = text.partition("## What a year leaves")[2].partition("\n## ")[0]
        for language, block in BLOCK.findall(section):
            for statement in [block] if language == "py" else statements(block):
                program = ["python", "-c"] if language == "py" else ["bash", "-ec"]
                self.machines[0].must(*program, self.filled(statement))
        self.machines[0].check_registry()

    def filled(self, statement: str) -> str:
        """With the places of this server, and with as much kept as is asked for."""
        given = {
            '"decodiff-elpv", 10': f'"{MODEL}", {self.kept}',
            "--num 20": f"--num {2 * self.kept}",
            "postgresql+psycopg:///mlflow?host=/srv/mlflow/socket":
                f"postgresql+psycopg:///mlflow?host={self.home}/server/socket",
            "/srv/mlflow/artifacts": f"{self.home}/server/artifacts",
        }  # fmt: skip
        for old, new in given.items():
            statement = statement.replace(old, new)
        return statement

    def close(self) -> None:
        self.running.close()
        self.preloaded.close()


def megabytes(folder: Path) -> float:
    """Of all files in a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def main() -> int:
    """Print the year; 0 where everything held."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.simulated_year")
    parser.add_argument("--weeks", type=int, default=52)
    parser.add_argument("--minutes", type=float, default=600, help="no week begins after these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kept", type=int, default=10, help="versions the clean-up leaves")
    parser.add_argument("--results", type=Path, default=Path("year.jsonl"))
    parser.add_argument("--folder", type=Path, required=True, help="a short path")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the servers
    home, began = options.folder.resolve(), time.monotonic()
    home.mkdir(exist_ok=True)
    home.chmod(0o755)  # PostgreSQL's account enters it
    text = options.results.read_text() if options.results.is_file() else ""
    weeks = [json.loads(line) for line in text.splitlines()]
    year = Year(home, options.seed, options.kept)
    try:
        for number in range(len(weeks) + 1, options.weeks + 1):
            if time.monotonic() - began > 60 * options.minutes:
                break
            weeks.append(year.attempt(number))
            with options.results.open("a") as file:
                file.write(json.dumps(weeks[-1]) + "\n")
            print(weeks[-1], file=sys.stderr, flush=True)
        print(f"{len(weeks)} weeks:", dict(Counter(one.get("event", "") for one in weeks)))
        print("before the clean-up, MB:", year.sizes())
        year.clean_up()
        print("after it, MB:", year.sizes())
    finally:
        year.close()
    broken = [f"week {one['week']}: {one['broken']}" for one in weeks if "broken" in one]
    print("\n".join(broken) or "everything held")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
