"""Name, description and parent run of an MLflow run, set from its outcome."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME, DESCRIPTION = "mlflow.runName", "mlflow.note.content"
DEFAULT = "__default__"
SHOWN = frozenset({"metrics", "registration", "promotion", "rollback", "monitoring"})
ENDED = {"FAILED": "failed", "KILLED": "stopped"}
LONGEST = 200  # characters of a name; MLflow's limit is 250
STAGE = "DVC_STAGE"  # environment variable that DVC sets for the command of a stage
KEY = "dvc_process"
PARENT = "mlflow.parentRunId"


def run_name(pipelines: list[str], dataset: str) -> str:
    """Name of a running run: pipelines and data set."""
    names = "+".join("all stages" if name == DEFAULT else name for name in pipelines)
    return f"{names} {dataset}"


def tags(name: str, status: str, saved: Mapping[str, Any]) -> dict[str, str]:
    """Name and description of a finished run, as MLflow tags.

    Args:
        name: See `run_name`.
        status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        saved: Saved data sets by name.
    """
    if status != "FINISHED":
        return {NAME: f"{name}: {ENDED[status]}"}
    sentences = parts = _sentences(saved)
    text = []
    if "metrics" in saved:
        from decodiff_pipeline.reporting.summary import NAMES, render_table

        text.append(f"```\n{render_table(saved['metrics'])}\n```")
        mean = saved["metrics"].get("mean") or {}
        values = {label: mean.get(key) for key, label in NAMES.items()}
        metrics = [f"{label} {value:.3f}" for label, value in values.items() if value is not None]
        parts = [*metrics, *sentences]
    named = {NAME: f"{name}: {', '.join(parts) or 'done'}"[:LONGEST]}
    text += sentences
    return named | ({DESCRIPTION: "\n\n".join(text)} if text else {})


def _sentences(saved: Mapping[str, Any]) -> list[str]:
    """The outcome of a registration, promotion, rollback or monitoring run."""
    sentences = []
    if "registration" in saved:
        registered = saved["registration"]
        sentences.append(f"version {registered['version']}")
    for kind in ("promotion", "rollback"):
        if kind in saved:
            from decodiff_pipeline.registry.audit import headline

            sentences.append(headline(saved[kind]).partition(": ")[2])
    if "monitoring" in saved:
        from decodiff_pipeline.monitoring.judgement import render_text

        sentences.append(render_text(saved["monitoring"]).splitlines()[0].partition(": ")[2])
    return sentences


def parent_tags(client: Any, experiment_id: str, run_id: str, dataset: str) -> dict[str, str]:
    """The tag that makes a run a child of the run of its `dvc repro`.

    The first stage creates the parent run.

    Returns:
        No tag if DVC did not start this process.
    """
    key = _dvc_process()
    if key is None:
        return {}
    parents = client.search_runs([experiment_id], f"tags.{KEY} = '{key}'")
    if parents:
        parent = parents[0].info.run_id
    else:
        started = client.get_run(run_id).info.start_time
        tags = {KEY: key, "dataset": dataset, "pipeline": "dvc"}
        parent = client.create_run(experiment_id, started, tags, f"dvc repro {dataset}").info.run_id
    client.set_terminated(parent)
    return {PARENT: parent}


def _dvc_process() -> str | None:
    """ID of the `dvc` process that started this one: the nearest ancestor without `DVC_STAGE`."""
    if STAGE not in os.environ:
        return None
    import psutil

    for ancestor in psutil.Process().parents():
        if STAGE not in ancestor.environ():
            return f"{ancestor.pid}-{int(ancestor.create_time())}"
    return None
