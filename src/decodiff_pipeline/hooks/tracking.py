"""Tracks Kedro runs as MLflow runs; nodes do not depend on MLflow."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

from decodiff_pipeline.commands import overrides
from decodiff_pipeline.data.provenance import git_state
from decodiff_pipeline.dvc_lock import dvc_revision
from decodiff_pipeline.hooks import run_content
from decodiff_pipeline.hooks.run_end import RunEnd
from decodiff_pipeline.tracking import journal
from decodiff_pipeline.tracking.mlflow_values import (
    default_uri,
    first_line,
    prepare_environment,
    set_environment,
)
from decodiff_pipeline.tracking.tracker import UPLOAD, Tracker

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
        "visibility",
    }
)
TRAINING = frozenset({"__default__", "ablation", "autoencoder", "retrain", "train", "training"})
DVC_EXPERIMENT = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")  # also tags, in lower case
SWITCH = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
SAMPLES = 3  # samples of 10 s averaged per logged value
PATIENCE = 20.0  # seconds to wait for MLflow's thread, which may wait for a server


class TrackingHooks:
    """Start an MLflow run for a tracked pipeline, log to it, and end it in any case.

    A data set is logged when it is saved if its catalog entry has ``metadata: {mlflow: KIND}`` with
    ``metrics`` (numbers of a JSON file), ``artifact`` (the file or folder), ``history`` (JSON Lines
    with a ``step``), ``table``, or a list of these. With ``digest`` it is logged as the run's data
    set when it is first saved or loaded. ``MLFLOW_RUN_ID`` is set during the run, so that nodes of
    a project can log to it.
    """

    def __init__(self) -> None:
        self.tracker: Tracker | None = None
        self._names: list[str] = []
        self._saved: dict[str, Any] = {}
        self._project = Path()
        self._dataset = ""
        self._env = ""
        self._logged: dict[str, run_content.Marked] = {}
        self._run_end = RunEnd(self._exiting)
        self._environment: dict[str, str | None] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Store the project folder, the environment and the name of the data set."""
        self._project = Path(context.project_path)
        self._env = context.env or "base"
        self._dataset = self._project.name
        with contextlib.suppress(Exception):  # a project may have no globals
            self._dataset = str(context.config_loader["globals"]["dataset"])

    @hook_impl
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Start the run; MLflow is imported here, not at start-up."""
        self.tracker = None
        self._names = run_params.get("pipeline_names") or ["__default__"]
        if TRACKED.isdisjoint(self._names):
            return
        self._saved = {}
        self._logged = run_content.marked_for_mlflow(pipeline, catalog)
        prepare_environment()
        import mlflow

        # Under `dvc exp run --temp` the project is a temporary copy of DVC_ROOT.
        home = Path(os.environ.get("DVC_ROOT") or self._project)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or default_uri(self._project)
        unsent = home / journal.FOLDER
        _warn_of_unsent_runs(unsent)
        self.tracker = Tracker(
            uri,
            self._dataset,
            run_name=run_content.run_name(self._names, self._dataset),
            tags=self._tags(run_params),
            unsent=unsent,
        )
        self._system_metrics = SystemMetrics(self.tracker)
        self._run_end.watch()
        self.tracker.start()
        mlflow.set_tracking_uri(uri)
        self._environment = set_environment(
            {"MLFLOW_TRACKING_URI": uri, "MLFLOW_RUN_ID": self.tracker.run_id}
        )
        self.tracker.log_params(run_content.parameters(pipeline, catalog))
        self._system_metrics.start()

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Log a data set that the catalog marks for MLflow."""
        if dataset_name in run_content.SHOWN:
            self._saved[dataset_name] = data
        self._log(dataset_name, data, run_content.KINDS)

    @hook_impl
    def after_dataset_loaded(self, dataset_name: str, data: Any) -> None:
        """Log the run's data set if the run loads the manifest."""
        self._log(dataset_name, data, ("digest",))

    def _log(self, name: str, data: Any, wanted: Iterable[str]) -> None:
        tracker = self._active_tracker()
        kinds, path = self._logged.get(name, ([], Path()))
        for kind in kinds:
            if tracker is None or kind not in wanted:
                continue
            try:
                if kind == "digest":
                    tracker.log_data(partial(self._describe, data, path))
                else:
                    run_content.send(tracker, kind, data, path, name)
            except Exception as error:  # the run continues without the copy in MLflow
                logger.warning("%s was not sent to MLflow: %s", name, first_line(error))

    @hook_impl
    def after_pipeline_run(self) -> None:
        """End the run as FINISHED."""
        self._end("FINISHED")

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        """End the run as FAILED, with the error's first line as a tag."""
        self._end("FAILED", tags={"error": f"{type(error).__name__}: {first_line(error)}"})

    def _tags(self, run_params: Mapping[str, Any]) -> dict[str, str]:
        git = git_state(self._project)
        untrained = TRAINING.isdisjoint(self._names)  # dvc.lock does not contain a new training
        tags = {
            "pipeline": "+".join(self._names),
            "env": self._env,
            "dataset": self._dataset,
            "kedro_run_id": run_params["run_id"],
            "git_commit": git.commit,
            "git_dirty": git.dirty,
            "mlflow.source.git.commit": git.commit,
            "mlflow.source.name": f"kedro run --pipelines {','.join(self._names)}",
            "dvc_revision": dvc_revision(self._project, self._env) if untrained else None,
            "parameter_overrides": ", ".join(sorted(overrides())) or None,
            **{name.lower(): os.environ.get(name) for name in DVC_EXPERIMENT},
        }
        return {key: str(value) for key, value in tags.items() if value not in (None, "")}

    def _describe(self, manifest: Any, path: Path) -> tuple[str, dict[str, Any]]:
        context = "evaluation" if TRAINING.isdisjoint(self._names) else "training"
        return run_content.describe_manifest(
            manifest, name=self._dataset, path=path, project=self._project, context=context
        )

    def _active_tracker(self) -> Tracker | None:
        """The tracker, unless its run has ended or this is a forked worker."""
        if self.tracker is None or self.tracker.finished or not self._run_end.is_own_process():
            return None
        return self.tracker

    def _exiting(self) -> None:
        # Kedro does not report an error of another hook before the first node.
        error = getattr(sys, "last_value", None)
        if isinstance(error, Exception):
            self.on_pipeline_error(error)
        else:
            self._end("KILLED")

    def _end(self, status: str, tags: Mapping[str, str] | None = None) -> None:
        tracker = self._active_tracker()
        if tracker is None:
            return
        with self._run_end.undisturbed(exiting=status == "KILLED"):
            self._system_metrics.stop()
            tracker.finish(status, tags=self._last_tags(tracker, status) | dict(tags or {}))
            set_environment(self._environment)

    def _last_tags(self, tracker: Tracker, status: str) -> dict[str, str]:
        """Name, description and parent run, which depend on the outcome."""
        name, tags = run_content.run_name(self._names, self._dataset), {}
        try:
            tags = run_content.outcome_tags(name, status, self._saved)
            run, experiment = tracker.run_id, tracker.experiment_id
            if run and experiment and status != "KILLED":  # a killed run must end quickly
                from mlflow import MlflowClient

                client = MlflowClient(tracker.tracking_uri)
                tags |= run_content.parent_tags(client, experiment, run, self._dataset)
        except Exception as error:  # these tags are not essential
            logger.info("the run's name in MLflow is not set: %s", first_line(error))
        return tags


def _warn_of_unsent_runs(unsent: Path) -> None:
    count = sum(journal.is_abandoned(path) for path in journal.journals(unsent))
    if count:
        logger.warning("MLflow has not all of %d earlier runs; `%s` sends the rest", count, UPLOAD)


class SystemMetrics:
    """MLflow's system metrics of a run; not logged if MLflow is unreachable."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._over = threading.Event()
        self._ending: threading.Thread | None = None

    def start(self) -> None:
        """Start, unless ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING`` is ``false``."""
        off = os.environ.get(SWITCH, "").lower() in {"false", "0"}
        if off or self._tracker.run_id is None:
            return
        try:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            monitor = SystemMetricsMonitor(
                self._tracker.run_id,
                samples_before_logging=SAMPLES,
                tracking_uri=self._tracker.tracking_uri,
            )
        except Exception as error:  # such as psutil not installed
            logger.warning("system metrics are not logged: %s", first_line(error))
            return
        monitor.start()
        # Started now, because no thread can be started while the interpreter exits.
        self._ending = threading.Thread(target=self._end, args=[monitor], daemon=True)
        self._ending.start()

    def stop(self) -> None:
        """Stop MLflow's thread, or abandon it after `PATIENCE` if the server does not answer."""
        self._over.set()
        if self._ending is not None:
            self._ending.join(PATIENCE)

    def _end(self, monitor: Any) -> None:
        self._over.wait()
        monitor.finish()
