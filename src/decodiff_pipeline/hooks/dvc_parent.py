"""The stages of one `dvc repro` under one run: each stage is a process and a run of its own."""

from __future__ import annotations

import os
from typing import Any

STAGE = "DVC_STAGE"  # what DVC sets for the command of a stage
KEY = "dvc_process"
PARENT = "mlflow.parentRunId"


def parent_tags(client: Any, experiment_id: str, run_id: str, dataset: str) -> dict[str, str]:
    """The tag that puts a run under the run of its `dvc repro`, which the first stage makes.

    Args:
        client: An ``MlflowClient``.
        experiment_id: Of the run.
        run_id: Of the stage that is over.

    Returns:
        No tag where DVC did not start this process.
    """
    key = _dvc_process()
    if key is None:
        return {}
    found = client.search_runs([experiment_id], f"tags.{KEY} = '{key}'")
    if found:
        parent = found[0].info.run_id
    else:
        started = client.get_run(run_id).info.start_time
        tags = {KEY: key, "dataset": dataset, "pipeline": "dvc"}
        parent = client.create_run(experiment_id, started, tags, f"dvc repro {dataset}").info.run_id
    client.set_terminated(parent)
    return {PARENT: parent}


def _dvc_process() -> str | None:
    """The `dvc` that started this process: its nearest ancestor that is no command of a stage."""
    if STAGE not in os.environ:
        return None
    import psutil

    for ancestor in psutil.Process().parents():
        if STAGE not in ancestor.environ():
            return f"{ancestor.pid}-{int(ancestor.create_time())}"
    return None
