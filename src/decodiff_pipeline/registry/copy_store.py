"""Copies runs and model versions from one MLflow store to another, such as a laptop to a server.

    MLFLOW_TRACKING_URI=https://mlflow.example.org \
        python -m decodiff_pipeline.registry.copy_store sqlite:///mlflow.db

Runs keep names, times, parameters, metrics, tags, data sets and artifacts; versions keep numbers,
tags, files and aliases. A copied run has a new id; its tag ``copied_from`` is the original id. An
interrupted copy can be continued: what the target already has is not copied again.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from decodiff_pipeline.errors import DecodiffError, ModelError
from decodiff_pipeline.tracking.mlflow_values import (
    METRICS_PER_BATCH,
    PARAMS_PER_BATCH,
    batches,
    default_uri,
    first_line,
    patience,
    prepare_environment,
)
from decodiff_pipeline.tracking.redaction import redact
from decodiff_pipeline.tracking.uploader import SQLITE, find_or_create_experiment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

COPIED_FROM = "copied_from"
PARENT = "mlflow.parentRunId"
LOGGED = "models:/"  # prefix of a version's source, before the id of the logged model
PAGE = 200  # runs per request


class StoreCopy:
    """Copies a store to another."""

    def __init__(self, source: str, target: str) -> None:
        prepare_environment()
        import mlflow

        # MLflow resolves some URIs, such as those of a version's files, in the global store.
        mlflow.set_tracking_uri(target)
        self._source_uri, self._target_uri = source, target
        self._source = mlflow.MlflowClient(source, registry_uri=source)
        self._target = mlflow.MlflowClient(target, registry_uri=target)
        self._runs: dict[str, str] = {}  # run id in the source → run id in the target
        self.copied = {"runs": 0, "versions": 0}

    def copy(self) -> None:
        """Copy every ended run, then the versions and aliases of every model.

        Raises:
            ModelError: The target has other versions with the same numbers.
        """
        for experiment in self._source.search_experiments():
            for run in self._runs_of(experiment.experiment_id):
                self._copy_run(run, experiment.name)
        for run_id, copy in self._runs.items():
            parent = self._source.get_run(run_id).data.tags.get(PARENT)
            if parent in self._runs:
                self._target.set_tag(copy, PARENT, self._runs[parent])
        for model in self._source.search_registered_models():
            self._copy_model(model)

    def _runs_of(self, experiment_id: str) -> Iterator[Run]:
        token = None
        while True:
            page = self._source.search_runs([experiment_id], max_results=PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _copy_run(self, run: Run, experiment: str) -> None:
        from mlflow.entities import Param, RunTag

        if run.info.status == "RUNNING":
            return
        experiment_id = find_or_create_experiment(self._target, experiment, self._target_uri)
        run_id = run.info.run_id
        for copied in self._target.search_runs([experiment_id], f"tags.{COPIED_FROM} = '{run_id}'"):
            if copied.info.end_time == run.info.end_time:
                self._runs[run_id] = copied.info.run_id
                return
            self._target.delete_run(copied.info.run_id)  # incomplete
        tags = {COPIED_FROM: run_id, "mlflow.user": run.data.tags.get("mlflow.user", "")}
        created = self._target.create_run(
            experiment_id, run.info.start_time, tags, run.info.run_name
        )
        copy = created.info.run_id
        others = [RunTag(*item) for item in run.data.tags.items() if item[0] not in (PARENT, *tags)]
        self._target.log_batch(copy, tags=others)
        for part in batches([Param(*item) for item in run.data.params.items()], PARAMS_PER_BATCH):
            self._target.log_batch(copy, params=part)
        points = [
            point
            for key in run.data.metrics
            for point in self._source.get_metric_history(run_id, key)
        ]
        for part in batches([_metric(point) for point in points], METRICS_PER_BATCH):
            self._target.log_batch(copy, metrics=part)
        if run.inputs and run.inputs.dataset_inputs:
            self._target.log_inputs(copy, run.inputs.dataset_inputs)
        with self._downloaded(run.info.artifact_uri) as folder:
            self._target.log_artifacts(copy, folder)
        self._target.set_terminated(copy, run.info.status, run.info.end_time)
        self._runs[run_id] = copy
        self.copied["runs"] += 1

    @contextmanager
    def _downloaded(self, uri: str) -> Iterator[str]:
        """Download artifacts of the source to a temporary folder."""
        import mlflow

        with tempfile.TemporaryDirectory() as folder:
            yield mlflow.artifacts.download_artifacts(
                artifact_uri=uri, dst_path=folder, tracking_uri=self._source_uri
            )

    def _copy_model(self, model: RegisteredModel) -> None:
        from mlflow.exceptions import MlflowException

        existing, versions = (
            {int(v.version): v for v in client.search_model_versions(f"name = '{model.name}'")}
            for client in (self._target, self._source)
        )
        for number, version in versions.items():
            other = existing.get(number)
            if other is not None and other.tags.get(COPIED_FROM) != version.run_id:
                raise ModelError(
                    f"{redact(self._target_uri)} has a version {number} of {model.name} that is no "
                    "copy: rename that model, or copy to an empty registry"
                )
        try:
            self._target.create_registered_model(model.name, description=model.description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        for number in range(1, max(versions, default=0) + 1):
            if number in existing:
                continue
            if number in versions:
                self._copy_version(versions[number])
            elif number > max(existing, default=0):  # so that later versions keep their numbers
                self._skip_number(model.name, number)
        for alias, aliased in model.aliases.items():
            self._target.set_registered_model_alias(model.name, alias, str(aliased))

    def _skip_number(self, name: str, number: int) -> None:
        """Use up the number of a version that was deleted in the source."""
        run_id = next(iter(self._runs.values()))  # a server accepts only files of a run
        source = self._target.get_run(run_id).info.artifact_uri
        self._target.create_model_version(name, source, run_id)
        self._target.delete_model_version(name, str(number))

    def _copy_version(self, version: ModelVersion) -> None:
        source, source_run = str(version.source), str(version.run_id)
        model_id = source.removeprefix(LOGGED)
        if model_id == source:
            raise ModelError(
                f"version {version.version} of {version.name} is not a model logged by MLflow 3; "
                "delete it, or register it again"
            )
        logged = self._source.get_logged_model(model_id)
        run_id = self._runs.get(source_run)
        name = self._source.get_experiment(logged.experiment_id).name
        experiment_id = find_or_create_experiment(self._target, name, self._target_uri)
        copy = self._target.create_logged_model(
            experiment_id, logged.name, run_id, logged.tags, logged.params, logged.model_type
        )  # fmt: skip
        with self._downloaded(logged.artifact_location) as folder:
            mlmodel = Path(folder, "MLmodel")
            content = yaml.safe_load(mlmodel.read_bytes())
            content |= {
                "run_id": run_id,
                "model_id": copy.model_id,
                "artifact_path": copy.artifact_location,
            }
            mlmodel.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
            self._target.log_model_artifacts(copy.model_id, folder)
        self._target.finalize_logged_model(copy.model_id, "READY")
        if run_id is not None:
            points = [_metric(point, copy.model_id) for point in logged.metrics or []]
            for part in batches(points, METRICS_PER_BATCH):
                self._target.log_batch(run_id, metrics=part)
        self._target.create_model_version(
            version.name, f"{LOGGED}{copy.model_id}", run_id,
            {**version.tags, COPIED_FROM: source_run}, description=version.description,
            model_id=copy.model_id,
        )  # fmt: skip
        self.copied["versions"] += 1


def _metric(point: Any, model_id: str | None = None) -> Any:
    from mlflow.entities import Metric

    return Metric(point.key, point.value, point.timestamp, point.step, model_id=model_id)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m decodiff_pipeline.registry.copy_store")
    parser.description = "Copy MLflow's runs and model versions to the store MLFLOW_TRACKING_URI."
    parser.add_argument("source", nargs="?", default=None, help="default: mlflow.db of this folder")
    options = parser.parse_args(arguments)
    target = os.environ.get("MLFLOW_TRACKING_URI")
    source = options.source or default_uri(Path.cwd())
    if not target or target == source:
        sys.stderr.write("Error: set MLFLOW_TRACKING_URI to the server to copy to\n")
        return 1
    # MLflow creates an empty database if the file does not exist.
    if source.startswith(SQLITE) and not Path(source.removeprefix(SQLITE)).is_file():
        sys.stderr.write(f"Error: {redact(source)} does not exist; name the store to copy\n")
        return 1
    from mlflow.exceptions import MlflowException

    try:
        copy = StoreCopy(source, target)
        with patience():
            copy.copy()
    except (DecodiffError, MlflowException, OSError) as error:
        sys.stderr.write(f"Error: {first_line(error)}; run the command again to continue\n")
        return 1
    counts = ", ".join(f"{count} {what}" for what, count in copy.copied.items())
    sys.stdout.write(f"{counts} copied from {redact(source)} to {redact(target)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
