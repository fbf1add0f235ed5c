"""Collects what a run logs to MLflow: marked data sets, parameters and the manifest's digest."""

from __future__ import annotations

import dataclasses
import json
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
        manifest: A row for each image.
        name: Name of the data set.
        path: File of the manifest; only its name is logged if it is outside the project.
        project: Project folder.
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
