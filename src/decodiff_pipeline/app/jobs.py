"""Runs one long command at a time, such as a retraining, in a subprocess and keeps its output.

`python -m decodiff_pipeline.app.jobs` runs a pipeline with parameters in JSON, because a reason may
contain commas and quotation marks, which `kedro run --params` would parse.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.tracking.redaction import without_paths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decodiff_pipeline.app.project import AppProject

READ, SHOWN = 200_000, 20_000  # bytes at the end of the output, and characters on the page
STEP = re.compile(r"Running (?:node: |stage ')(\w+)")  # output of Kedro and of DVC
DONE = re.compile(r"Completed (\d+) out of (\d+) tasks")


class Jobs:
    """Starts commands in the project's folder, and reports their state and output."""

    def __init__(self, project: AppProject) -> None:
        self._project = project
        self._output = tempfile.TemporaryFile()
        self._process: subprocess.Popen[bytes] | None = None
        self._name, self._began = "", 0.0
        self._lock = threading.Lock()

    def pipeline(self, name: str, parameters: dict[str, Any], by: str) -> None:
        """Start a Kedro pipeline; arguments and errors as in `start`."""
        job = {"environment": self._project.environment, "pipeline": name, "params": parameters}
        self.start(name, [sys.executable, "-m", __spec__.name, json.dumps(job)], by)

    def retrain(self, by: str) -> None:
        """Start a retraining, with DVC if the project uses DVC and Git, else with Kedro alone."""
        root, environment = self._project.root, self._project.environment
        if (root / ".dvc").is_dir() and (root / ".git").exists():
            named = ["--env", environment] if environment else []
            module = [sys.executable, "-m", "decodiff_pipeline.retrain", *named]
            self.start("retraining", module, by)
        else:
            self.pipeline("retrain", {}, by)

    def start(self, name: str, command: Sequence[str], by: str) -> None:
        """Start a command.

        Args:
            by: User, as recorded in the audit log.

        Raises:
            ConfigurationError: Another command is running.
        """
        with self._lock:
            if self.running:
                raise ConfigurationError(f"{self._name} is still running; wait, or stop it")
            self._output.close()
            self._output, self._name = tempfile.TemporaryFile(), name
            self._began = time.monotonic()
            self._process = subprocess.Popen(  # noqa: S603 - no shell
                command,
                cwd=self._project.root,
                env={**os.environ, "LOGNAME": by, "PYTHONUNBUFFERED": "1", "COLUMNS": "120"},
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
            )

    def stop(self) -> None:
        """Terminate the command; a training resumes from its checkpoint when started again."""
        if self._process is not None and self.running:
            self._process.terminate()

    @property
    def running(self) -> bool:
        """Whether a command is running."""
        return self._process is not None and self._process.poll() is None

    @property
    def state(self) -> str:
        """One line: the running command and its progress, or how the last one ended."""
        if self._process is None:
            return "no command was started"
        code = self._process.poll()
        if code is None:
            minutes, output = int(time.monotonic() - self._began) // 60, self.tail()
            steps = [f", {step}" for step in STEP.findall(output)[-1:]]
            steps += [f", {done} of {of} steps done" for done, of in DONE.findall(output)[-1:]]
            return f"{self._name} is running for {minutes} min{''.join(steps)}"
        return f"{self._name} is done" if code == 0 else f"{self._name} has failed (exit {code})"

    def tail(self) -> str:
        """The end of the output, with absolute paths reduced to file names."""
        size = os.fstat(self._output.fileno()).st_size
        found = os.pread(self._output.fileno(), READ, max(0, size - READ)).decode(
            "utf-8", "replace"
        )
        # Keep the last state of a progress bar, as a terminal does.
        lines = (line.rstrip("\r").rpartition("\r")[2] for line in found.split("\n"))
        return without_paths("\n".join(line for line in lines if line.strip())[-SHOWN:])


def main(job: dict[str, Any]) -> None:
    """Run a pipeline of the project in the current folder.

    Args:
        job: ``environment``, ``pipeline`` and ``params``, the nested runtime parameters.
    """
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project

    root = Path.cwd()
    bootstrap_project(root)
    given: Any = {"env": job["environment"], "runtime_params": job["params"]}
    session: Any = KedroSession.create(project_path=root, **given)
    with session:
        session.run(pipeline_names=[job["pipeline"]])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
