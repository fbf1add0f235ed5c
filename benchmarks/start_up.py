"""What the command line costs before it works, against the limits the project sets itself."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROUNDS = 5
KEDRO = Path(sys.executable).with_name("kedro")
ENVIRONMENT = {**os.environ, "DO_NOT_TRACK": "true"}
PROJECT = Path(__file__).parent.parent
# Stands for a run without work: the project's own settings, hooks and catalog, and one node.
TRIVIAL = """
import sys
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.framework.project import pipelines
from kedro.pipeline import node, pipeline
bootstrap_project(sys.argv[1])
pipelines._content, pipelines._is_data_loaded = None, False
import decodiff_pipeline.pipeline_registry as registry
registry.register_pipelines = lambda: {"trivial": pipeline([node(lambda: 1, None, "one")])}
with KedroSession.create(sys.argv[1]) as session:
    session.run(pipeline_names=["trivial"])
"""


def run() -> list[dict[str, Any]]:
    """``kedro --help``, and a run of one node that does nothing."""
    with tempfile.TemporaryDirectory() as name:
        script = Path(name) / "trivial.py"
        script.write_text(TRIVIAL)
        return [
            _record("kedro_help", [str(KEDRO), "--help"], limit=3.0),
            _record("kedro_run_trivial", [sys.executable, str(script), str(PROJECT)], limit=3.0),
        ]


def _record(name: str, command: list[str], limit: float) -> dict[str, Any]:
    seconds = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd=PROJECT, env=ENVIRONMENT)
        seconds.append(time.perf_counter() - start)
    ours = statistics.median(seconds[1:])
    return {
        "name": name,
        "ours": round(ours, 2),
        "peer": limit,
        "peer_name": "the limit this project sets itself",
        "unit": "s",
        "ratio": round(limit / ours, 2),
    }
