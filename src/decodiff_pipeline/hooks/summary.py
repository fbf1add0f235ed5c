"""Prints a summary at the end of a run."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.hooks import hook_impl

from decodiff_pipeline.commands import environment, overrides
from decodiff_pipeline.dvc_lock import IN_STAGE, LOCK_FILE, stages_file, unrecorded
from decodiff_pipeline.tracking.redaction import redact

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline

    from decodiff_pipeline.hooks.tracking import TrackingHooks

logger = logging.getLogger(__name__)


class SummaryHooks:
    """Print metrics, the result of the monitoring, and how to open report, MLflow run and model.

    Only outputs of the run are listed.
    """

    def __init__(self, tracking: TrackingHooks) -> None:
        self._tracking = tracking
        self._project = Path()

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Store the project folder."""
        self._project = Path(context.project_path)

    @hook_impl(trylast=True)
    def after_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Print the summary."""
        try:
            blocks = self._blocks(pipeline.all_outputs(), catalog)
            blocks += self._unrecorded(pipeline.all_outputs(), catalog)
        except Exception as error:  # the run has succeeded
            logger.warning("the summary cannot be shown: %s", error)
            return
        if blocks:
            click.echo("\n" + "\n".join([*blocks, *_activation()]))

    def _blocks(self, written: set[str], catalog: DataCatalog) -> list[str]:
        blocks: list[str] = []
        if "metrics" in written:
            from decodiff_pipeline.reporting.summary import render_table

            blocks.append(render_table(catalog.load("metrics")))
        if "monitoring" in written:
            from decodiff_pipeline.monitoring.judgement import render_text

            blocks.append(render_text(catalog.load("monitoring")))
        pages = {
            "report": "report",
            "visibility": "visibility_html",
            "drift": "monitoring_report",
        }
        blocks += [
            self._page(label, name, catalog) for label, name in pages.items() if name in written
        ]
        blocks += self._run()
        if "registration" in written:
            blocks.append(_model(catalog.load("registration")))
        for name in ("promotion", "rollback"):
            if name in written:
                from decodiff_pipeline.registry import audit

                blocks.append(audit.render_table(catalog.load(name)))
        return blocks

    def _unrecorded(self, written: set[str], catalog: DataCatalog) -> list[str]:
        """The command that records this run's outputs, if ``dvc.lock`` is out of date."""
        lock = stages_file(self._project, environment()).with_name(LOCK_FILE)
        if IN_STAGE in os.environ or not lock.is_file():
            return []
        entries = (catalog.config_resolver.resolve_pattern(name) for name in written)
        outputs = {Path(entry.get("filepath") or entry.get("path") or "") for entry in entries}
        changed = [
            path
            for path in unrecorded(self._project, environment())
            if self._project / path in outputs
        ]
        if not changed:
            return []
        env = f" --env {environment()}" if self._project != lock.parent else ""
        params = ", ".join(f"{name}={value}" for name, value in overrides().items())
        first = f"write {params} into conf/{environment() or 'base'} first, then " if params else ""
        return [
            f"DVC:        {lock.relative_to(self._project)} is of an earlier run than "
            f"{', '.join(changed[:2])}{' and others' if changed[2:] else ''};\n{'':<12}"
            f"{first}python -m decodiff_pipeline.record{env}"
        ]

    def _page(self, label: str, name: str, catalog: DataCatalog) -> str:
        path = Path(catalog.config_resolver.resolve_pattern(name)["filepath"])
        relative = path.relative_to(self._project) if path.is_relative_to(self._project) else path
        return _entry(label, str(relative), f"python -m webbrowser -t {path.as_uri()}")

    def _run(self) -> list[str]:
        tracker = self._tracking.tracker
        if tracker is None or tracker.run_id is None:
            return []
        name = f"{tracker.run_id} in experiment {tracker.experiment!r}"
        if not tracker.tracking_uri.startswith("sqlite:"):
            page = f"#/experiments/{tracker.experiment_id}/runs/{tracker.run_id}"
            return [_entry("MLflow run", name, f"{redact(tracker.tracking_uri)}/{page}")]
        command = f"python -m decodiff_pipeline.tracking.ui {shlex.quote(tracker.experiment)}"
        return [_entry("MLflow run", name, f"{_store(tracker.tracking_uri)} {command}")]


def _model(registration: dict[str, Any]) -> str:
    name = f"{registration['name']} version {registration['version']}"
    if not registration["new"]:
        name += " (the model has not changed: no new version)"
    store = _store(registration["tracking_uri"])
    return _entry("model", name, f"{store} {registration['serve']}")


def _store(uri: str) -> str:
    return f"MLFLOW_TRACKING_URI={shlex.quote(uri)}"


def _entry(label: str, value: str, command: str) -> str:
    return f"{label + ':':<12}{value}\n{'':<12}{command}"


def _activation() -> list[str]:
    """The command that activates this Python environment, if it is not active."""
    tools = Path(sys.executable).parent
    mlflow = shutil.which("mlflow")
    if mlflow is not None and Path(mlflow).parent.samefile(tools):
        return []
    if not (tools / "activate").exists():
        return []
    activate = tools / "activate"
    if activate.is_relative_to(Path.cwd()):
        activate = activate.relative_to(Path.cwd())
    return [f"(in a new shell first: . {activate})"]
