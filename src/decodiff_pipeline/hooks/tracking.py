"""Kedro runs as MLflow runs, without a dependency of any node on MLflow."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import logging
import os
import signal
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kedro.framework.hooks import hook_impl

from decodiff_pipeline.data.provenance import data_digest, dvc_revision, git_state
from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.registry.mlflow_values import first_line, prepare_environment
from decodiff_pipeline.registry.tracking import Tracker

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import FrameType

    from kedro.framework.context import KedroContext
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline

logger = logging.getLogger(__name__)

TRACKED = frozenset(
    {
        "__default__",
        "ablation",
        "autoencoder",
        "evaluation",
        "monitoring",
        "promotion",
        "registration",
        "retrain",
        "rollback",
        "train",
        "training",
    }
)
KINDS = ("metrics", "history", "artifact", "figure", "table", "digest")
DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"

Marked = tuple[list[str], Path]  # kinds of a data set, and where it is


class TrackingHooks:
    """Start an MLflow run for a tracked pipeline, log to it, and end it whatever happens.

    A data set is logged when it is saved if its catalog entry says so: ``metadata: {mlflow:
    metrics}`` (numbers of a JSON file), ``artifact`` (the file or folder), ``history`` (JSON
    lines with a ``step``), ``figure`` (one, or a folder of them), ``table``, or a list of these.
    A ``digest`` is a tag, set when the manifest is first saved or loaded. The run's id is in the
    environment as ``MLFLOW_RUN_ID`` while it lasts, so that nodes and the processes they start
    can log to the same run.

    Args:
        tracked: Names of the pipelines that get a run.
    """

    def __init__(self, tracked: Iterable[str] = TRACKED) -> None:
        self.tracker: Tracker | None = None
        self._tracked = frozenset(tracked)
        self._project = Path()
        self._dataset = ""
        self._env = ""
        self._logged: dict[str, Marked] = {}
        self._process = 0
        self._previous_handler: Any = None
        self._environment: dict[str, str | None] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember where the project is and which data set it works on."""
        self._project = Path(context.project_path)
        self._env = context.env or "base"
        self._dataset = self._project.name
        with contextlib.suppress(Exception):  # a project may do without globals
            self._dataset = str(context.config_loader["globals"]["dataset"])

    @hook_impl
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Start the run; only here is MLflow imported."""
        self.tracker = None
        names = run_params.get("pipeline_names") or ["__default__"]
        if self._tracked.isdisjoint(names):
            return
        self._logged = _marked_for_mlflow(pipeline, catalog)
        prepare_environment()
        import mlflow

        # Under `dvc exp run --temp` the project is a throw-away copy, and DVC_ROOT the real one.
        home = Path(os.environ.get("DVC_ROOT") or self._project)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / DATABASE}"
        self.tracker = Tracker(
            uri,
            self._dataset,
            artifact_root=_artifacts_beside(uri),
            run_name=f"{'+'.join(names)} {run_params['run_id'][:19]}",
            tags=self._tags(run_params, names),
        )
        self._catch_the_end()
        mlflow.set_tracking_uri(uri)
        self._set_environment(MLFLOW_TRACKING_URI=uri, MLFLOW_RUN_ID=self.tracker.run_id)
        self.tracker.log_params(_parameters(pipeline, catalog))

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Log what the catalog marks for MLflow."""
        self._log(dataset_name, data, KINDS)

    @hook_impl
    def after_dataset_loaded(self, dataset_name: str, data: Any) -> None:
        """Name the data that a run works with, where it does not make them."""
        self._log(dataset_name, data, ("digest",))

    def _log(self, name: str, data: Any, wanted: Iterable[str]) -> None:
        tracker = self._active_tracker()
        kinds, path = self._logged.get(name, ([], Path()))
        for kind in kinds:
            if tracker is None or kind not in wanted:
                continue
            try:
                _send(tracker, kind, data, path, name)
            except Exception as error:  # what was saved is worth more than its copy in MLflow
                logger.warning("%s is not in MLflow: %s", name, first_line(error))

    @hook_impl
    def after_pipeline_run(self) -> None:
        """End the run as FINISHED."""
        self._end("FINISHED")

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        """End the run as FAILED, with the error's first line as a tag."""
        self._end("FAILED", tags={"error": f"{type(error).__name__}: {first_line(error)}"})

    def _tags(self, run_params: Mapping[str, Any], names: list[str]) -> dict[str, str]:
        git = git_state(self._project)
        tags = {
            "pipeline": "+".join(names),
            "env": self._env,
            "dataset": self._dataset,
            "kedro_run_id": run_params["run_id"],
            "git_commit": git.commit,
            "git_dirty": git.dirty,
            "mlflow.source.git.commit": git.commit,
            "mlflow.source.name": f"kedro run --pipeline {','.join(names)}",
            "dvc_revision": dvc_revision(self._project),
        }
        return {key: str(value) for key, value in tags.items() if value is not None}

    def _active_tracker(self) -> Tracker | None:
        """The tracker, unless its run is over or this is a forked worker of the run."""
        if self.tracker is None or self.tracker.finished or os.getpid() != self._process:
            return None
        return self.tracker

    def _catch_the_end(self) -> None:
        """Kedro calls no hook on Ctrl-C, SIGTERM or sys.exit: these come by here.

        Registered after MLflow is imported, so that this runs before MLflow's own exit handlers.
        """
        self._process = os.getpid()
        atexit.register(self._end, "KILLED")
        if threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, number: int, _frame: FrameType | None) -> NoReturn:
        if os.getpid() != self._process:  # a forked worker inherits the handler, not the run
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        # Unwinds the stack, so that nodes stop their children; the exit handler ends the run.
        raise SystemExit(128 + number)

    def _end(self, status: str, tags: Mapping[str, str] | None = None) -> None:
        tracker = self._active_tracker()
        if tracker is None:
            return
        atexit.unregister(self._end)
        if self._previous_handler is not None:
            signal.signal(signal.SIGTERM, self._previous_handler)
            self._previous_handler = None
        tracker.finish(status, tags=tags)
        self._set_environment(**self._environment)

    def _set_environment(self, **values: str | None) -> None:
        """Set or (``None``) remove variables, remembering what they were."""
        self._environment = {key: os.environ.get(key) for key in values}
        for key, value in values.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _artifacts_beside(uri: str) -> Path | None:
    """Artifact folder next to a SQLite file; a server has its own place for them."""
    database = uri.removeprefix("sqlite:///")
    return None if database == uri else Path(database).resolve().parent / ARTIFACTS


def _marked_for_mlflow(pipeline: Pipeline, catalog: DataCatalog) -> dict[str, Marked]:
    """Kinds and path of the data sets whose catalog entry has ``metadata.mlflow``.

    Raises:
        ConfigurationError: A kind is unknown; before the run, not after hours of it.
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
                msg = (
                    f"catalog entry {name!r} has metadata.mlflow: {kind!r}; "
                    f"it must be one of {', '.join(KINDS)}, or a list of them"
                )
                raise ConfigurationError(msg)
        if kinds:
            marked[name] = (kinds, Path(config.get("filepath") or config["path"]))
    return marked


def _parameters(pipeline: Pipeline, catalog: DataCatalog) -> dict[str, Any]:
    """Nested plain values of the parameters that the pipeline's nodes read."""
    values: dict[str, Any] = {}
    for name in sorted(pipeline.inputs()):
        dataset = catalog.get(name) if name.startswith("param") else None
        if dataset is None:
            continue
        if name == "parameters":
            values.update({key: _plain(value) for key, value in dataset.load().items()})
        elif name.startswith("params:"):
            values[name.removeprefix("params:")] = _plain(dataset.load())
    return values


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value


def _send(tracker: Tracker, kind: str, data: Any, path: Path, name: str) -> None:
    """Log a data set as one of `KINDS`."""
    if kind == "metrics":
        tracker.log_metrics(data, name)
    elif kind == "history":
        tracker.log_history(_rows(data, path), name)
    elif kind == "figure":
        tracker.log_figures(data, path)
    elif kind == "table":
        tracker.log_table(data, path)
    elif kind == "digest":
        tracker.tag_once("data_digest", partial(data_digest, data))
    else:
        tracker.log_artifact(path, name)


def _rows(data: Any, path: Path) -> Iterable[Mapping[str, Any]]:
    """Rows of a history: the saved list, or the lines of the JSON lines file it went to."""
    if isinstance(data, list):
        return data
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]
