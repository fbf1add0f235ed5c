"""The commands of the pages on the loop, run from the text: time and outcome of each.

``python -m benchmarks.documented_commands`` makes a tiny project with the data set ``elpv``, and
runs every `bash` and `py` block of retraining.md, promotion.md, monitoring.md and serving.md in it,
or of the pages named, statement by statement. A statement in `SKIPPED` is named with its reason.
What the text can only give an example of, such as a folder, is put in its place by `Loop.given`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from benchmarks.preloaded import Preloaded
from benchmarks.tiny_project import DATASET, FIXTURES, ROOT, Broken, Project, kill

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence

PAGES = ("retraining", "promotion", "monitoring", "serving")
BLOCK = re.compile(r"^```(bash|py)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# What a statement that is not run contains, and why.
SKIPPED = {
    "…": "leaves something out, such as a secret",
    "docker": "needs a container engine; docs/team.md says how the images are tested",
    "make demo": "makes an environment of its own; the three commands below it are its steps",
}
SERVER = "decodiff_pipeline.serving.server"
OWN = {"tiles": "nut", "bolts": "bolts"}  # other environments of the text, and their category


@dataclass
class Outcome:
    """Of a statement: exit status (``None``: not run), seconds, what it printed or the reason."""

    page: str
    statement: str
    code: int | None
    seconds: float = 0.0
    output: str = ""


def statements(block: str) -> list[str]:
    """The statements of a shell script, without comments; lines that go on are joined."""
    found, begun = [], ""
    for line in re.sub(r"(^|\s)# .*$", "", block, flags=re.MULTILINE).splitlines():
        begun += line.rstrip()
        if begun.count("'") % 2:
            begun += "\n"
        elif re.search(r"(\\|\||&&)$", begun):
            begun = begun.removesuffix("\\") + " "
        elif begun:
            found.append(begun)
            begun = ""
    return found


class Loop:
    """A project, and the commands of the pages in it."""

    def __init__(self, home: Path) -> None:
        uri = f"sqlite:///{home}/mlflow.db"
        changed = {"promotion": {"override_reason": "a trial"}, "monitoring": {"min_images": 3}}
        self.project = Project.make(home / "project", uri, changed)
        self.preloaded = self.project.preloaded = Preloaded(home / "p", self.project.folder)
        self.home = home
        self.server: subprocess.Popen[bytes] | None = None
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = int(listener.getsockname()[1])
        self.given = {
            "/data/this_week": str(home / "this_week"),
            "/var/log/decodiff": str(home / "log"),
            "sqlite:////path/to/project/mlflow.db": uri,
            "models:/decodiff-bolts": f"models:/decodiff-{DATASET}",
            f"data/01_raw/{DATASET}/images/cell0001.png": "cell.png",
            '"mono"': '"nut"',
            "promotion.challenger=7": "promotion.challenger=1",
            "127.0.0.1:5001": f"127.0.0.1:{self.port}",
            "postgresql+psycopg:///mlflow?host=/srv/mlflow/socket": uri,
            "/srv/mlflow/artifacts": str(home / "mlartifacts"),
        }
        self.prepare()

    def prepare(self) -> None:
        """Git, DVC with a remote, the folders that the pages name, and two more environments."""
        project, folder = self.project, self.project.folder
        good = FIXTURES / "raw" / "nut" / "train" / "good"
        shutil.copytree(good, self.home / "this_week" / "nut")
        shutil.copy(good / "000.png", folder / "cell.png")
        (self.home / "log").mkdir()
        new = (good / "001.png").read_bytes() + b"\x01"  # the same picture, another file
        (self.home / "log" / "new.png").write_bytes(new)
        (folder / "reviewed.csv").write_text(
            "category,verdict,path,image_sha256,defect_type,mask\nbolts,false_alarm,new.png,,,\n"
        )
        for name, category in OWN.items():
            (folder / "conf" / name).mkdir()
            (folder / "conf" / name / "globals.yml").write_text(yaml.safe_dump({"dataset": name}))
            shutil.copytree(FIXTURES / "raw" / "nut", folder / "data" / "01_raw" / name / category)
        project.must("git", "init", "--quiet", "--initial-branch", "main")
        project.must("dvc", "remote", "add", "--default", "storage", str(self.home / "remote"))
        for name in (None, *OWN):
            more = ("--env", name) if name else ()
            project.must("python", "-m", "decodiff_pipeline.dvc_stages", *more)
            project.must("dvc", "add", "--quiet", f"data/01_raw/{name or DATASET}")
        project.must("dvc", "push", "--quiet")
        project.must("git", "add", "--all")
        project.must("git", "commit", "--quiet", "--message", "Project")

    def run_page(self, page: str) -> Iterator[Outcome]:
        """The outcomes of a page's statements, in their order."""
        text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
        if page == "promotion":  # a newer version than the champion
            limit = "registration.max_pixels=40000000"
            self.project.must("kedro", "run", "--pipelines", "registration", "--params", limit)
        variables = ""
        for language, block in BLOCK.findall(text):
            for statement in [block] if language == "py" else statements(block):
                yield self.run(page, language, statement, variables)
                if re.match(r"\w+=\S*$", statement):
                    variables += self.filled(statement) + "\n"

    def run(self, page: str, language: str, statement: str, variables: str) -> Outcome:
        """Run a statement; the server goes on until the end."""
        shown = " ".join(statement.split())
        for part, reason in SKIPPED.items():
            if part in shown:
                return Outcome(page, shown, None, output=reason)
        began = time.perf_counter()
        if SERVER in statement:
            code, output = self.start_server(statement)
        else:
            program = ["bash", "-ec", variables + self.filled(statement)]
            if language == "py":
                program = ["python", "-c", self.filled(statement)]
            try:
                sentence = self.project.run(*program)
            except Broken as error:
                sentence = str(error)
            output = self.project.output()
            code = int(bool(sentence) or '"error_code"' in output)  # of a server's answer
        return Outcome(page, shown, code, time.perf_counter() - began, output)

    def filled(self, statement: str) -> str:
        """With paths and numbers of this project in place of the text's."""
        for old, new in self.given.items():
            statement = statement.replace(old, new)
        return statement

    def start_server(self, statement: str) -> tuple[int, str]:
        """Start the server of a page, and wait until it answers."""
        self.server = self.project.start("bash", "-c", f"PORT={self.port} {self.filled(statement)}")
        for _ in range(1200):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=5):
                    return 0, "answers"
            except OSError:
                if self.server.poll() is not None:
                    break
                time.sleep(0.25)
        return 1, self.project.output()

    def close(self) -> None:
        """End the server and the process with the imports."""
        if self.server is not None:
            kill(self.server)
        self.preloaded.wait()
        self.preloaded.close()


def outcomes(pages: Sequence[str] = PAGES) -> Iterator[Outcome]:
    """Of every statement of the pages."""
    home = Path(tempfile.mkdtemp(prefix="docs"))
    try:
        loop = Loop(home)
        try:
            if pages[0] != PAGES[0]:
                loop.project.must("kedro", "run", "--pipelines", "retrain")  # a champion
            for page in pages:
                yield from loop.run_page(page)
        finally:
            loop.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def line(one: Outcome) -> str:
    """An outcome for the terminal."""
    if one.code is None:
        return f"{one.page:<11}     not run  {one.statement}  ({one.output})"
    state = "ok" if one.code == 0 else f"FAILED {one.code}"
    text = f"{one.page:<11}{one.seconds:6.1f} s  {state:<8} {one.statement}"
    return text if one.code == 0 else f"{text}\n{one.output[-2000:]}"


def main() -> int:
    """Print the outcomes; 1 where a statement failed."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.documented_commands")
    parser.add_argument("pages", nargs="*", default=PAGES, metavar="PAGE", help=", ".join(PAGES))
    failed = 0
    for one in outcomes(parser.parse_args().pages):
        print(line(one), flush=True)
        failed += one.code not in (0, None)
    return int(failed > 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
