"""The content of an MLflow run: parameters, data sets, manifest, name, description, parent run."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.data.provenance import data_digest
from decodiff_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline

    from decodiff_pipeline.tracking.tracker import Tracker

DIGEST_LENGTH = 36  # MLflow's limit; the tag data_digest has all 64 characters
KINDS = ("metrics", "history", "artifact", "table", "digest")
NAME, DESCRIPTION = "mlflow.runName", "mlflow.note.content"
DEFAULT = "__default__"
SHOWN = frozenset({"metrics", "registration", "promotion", "rollback", "monitoring"})
ENDED = {"FAILED": "failed", "KILLED": "stopped"}
LONGEST = 200  # characters of a name; MLflow's limit is 250
STAGE = "DVC_STAGE"  # environment variable that DVC sets for the command of a stage
KEY = "dvc_process"
PARENT = "mlflow.parentRunId"

Marked = tuple[list[str], Path]  # kinds and path of a data set


def marked_for_mlflow(pipeline: Pipeline, catalog: DataCatalog) -> dict[str, Marked]:
    """Kinds and path of the data sets whose catalog entry has ``metadata.mlflow``.

    Raises:
        ConfigurationError: A kind is unknown.
    """
    marked = {}
    for name in pipeline.datasets():
        if name.startswith("param"):
            continue
        config = catalog.config_resolver.resolve_pattern(name)
        kinds = (config.get("metadata") or {}).get("mlflow") or []
        kinds = [kinds] if isinstance(kinds, str) else kinds
        for kind in kinds:
            if kind not in KINDS:
                raise ConfigurationError(
                    f"catalog entry {name!r} has metadata.mlflow: {kind!r}; "
                    f"it must be one of {', '.join(KINDS)}, or a list of them"
                )
        if kinds:
            marked[name] = (kinds, Path(config.get("filepath") or config["path"]))
    return marked


def parameters(pipeline: Pipeline, catalog: DataCatalog) -> dict[str, Any]:
    """The parameters that the pipeline's nodes read, as nested JSON values."""
    values: dict[str, Any] = {}
    for name in sorted(pipeline.inputs()):
        dataset = catalog.get(name) if name.startswith("param") else None
        if dataset is None:
            continue
        if name == "parameters":
            values.update({key: _json_value(value) for key, value in dataset.load().items()})
        elif name.startswith("params:"):
            values[name.removeprefix("params:")] = _json_value(dataset.load())
    return values


def _json_value(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value


def send(tracker: Tracker, kind: str, data: Any, path: Path, name: str) -> None:
    """Log a data set as one of `KINDS` except ``digest``."""
    if kind == "metrics":
        tracker.log_metrics(data, name)
    elif kind == "history":
        tracker.log_history(_rows(data, path), name)
    elif kind == "table":
        tracker.log_table(data, path)
    else:
        tracker.log_artifact(path, name)


def _rows(data: Any, path: Path) -> Iterable[Mapping[str, Any]]:
    """Rows of a history: the saved list, or the lines of its JSON Lines file."""
    if isinstance(data, list):
        return data
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def describe_manifest(
    manifest: pd.DataFrame, *, name: str, path: Path, project: Path, context: str
) -> tuple[str, dict[str, Any]]:
    """A manifest as an MLflow dataset: digest, path and numbers of images.

    Args:
        path: File of the manifest; only its name is logged if it is outside the project.
        context: ``training`` or ``evaluation``.

    Returns:
        The full digest, and the data of a record of kind ``input``.
    """
    digest = data_digest(manifest)
    uri = path.relative_to(project).as_posix() if path.is_relative_to(project) else path.name
    images: dict[str, Any] = {}
    groups = manifest[["category", "split", "label"]].astype(str)
    for (category, split, label), count in Counter(groups.itertuples(index=False)).items():
        images.setdefault(category, {}).setdefault(split, {})[label] = count
    columns = [{"name": str(c), "type": "string", "required": False} for c in manifest.columns]
    dataset = {
        "name": name,
        "digest": digest[:DIGEST_LENGTH],
        "source_type": "local",
        "source": json.dumps({"uri": uri}),
        "schema": json.dumps({"mlflow_colspec": columns}),
        "profile": json.dumps({"num_rows": len(manifest), "images": images}),
    }
    return digest, {"dataset": dataset, "context": context}


def run_name(pipelines: list[str], dataset: str) -> str:
    """Name of a running run: pipelines and data set."""
    names = "+".join("all stages" if name == DEFAULT else name for name in pipelines)
    return f"{names} {dataset}"


def outcome_tags(name: str, status: str, saved: Mapping[str, Any]) -> dict[str, str]:
    """Name and description of a finished run, as MLflow tags.

    Args:
        status: ``FINISHED``, ``FAILED`` or ``KILLED``.
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
