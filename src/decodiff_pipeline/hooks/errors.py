"""Errors as one sentence that says what to do, instead of a screen of traceback."""

from __future__ import annotations

import errno
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.hooks import hook_impl

from decodiff_pipeline.commands import kedro_run, use_environment
from decodiff_pipeline.errors import DataError, DecodiffError
from decodiff_pipeline.hooks.parameter_errors import ParameterErrors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from kedro.framework.context import KedroContext
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline

TRACEBACK_VARIABLE = "DECODIFF_TRACEBACK"
VALIDATION_LOGGER = "kedro.validation.parameter_validator"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# The message of a node's error is printed at the end. Kedro's advice to go on at a node would judge
# the old validation report again after the images were corrected: the same command is enough.
HIDDEN_LEVELS = {
    "kedro.pipeline.node": logging.ERROR,
    "kedro.runner.sequential_runner": logging.WARNING,
}
UNKNOWN_PIPELINE = "Failed to find the pipeline named"


class ErrorHooks:
    """Show errors that a user can act on as one sentence; the exit code stays 1.

    Kedro lets a node's exception end the process, and ``sys.excepthook`` prints it: here that hook
    is replaced for the errors this package raises on purpose, for wrong parameters and for a full
    disk. All other errors keep their traceback, and ``DECODIFF_TRACEBACK=1`` brings it back for
    all.
    """

    def __init__(self) -> None:
        self._project = Path()
        self._parameters: ParameterErrors | None = None
        self._installed = False

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Replace the exception hook: parameters are validated right after this."""
        self._project = Path(context.project_path)
        use_environment(context.env, context.config_loader.runtime_params)
        self._parameters = ParameterErrors(context)
        if os.environ.get(TRACEBACK_VARIABLE):
            return
        # What it logs stands in the error that it raises.
        logging.getLogger(VALIDATION_LOGGER).setLevel(logging.CRITICAL)
        if not self._installed:
            self._installed = True
            for name in HIDDEN_LEVELS:
                logging.getLogger(name).addFilter(_is_shown)
            self._previous_hook = sys.excepthook
            sys.excepthook = self._show

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Name the pipeline to run first where an input is missing that another one writes.

        Raises:
            DataError: A file the pipeline reads does not exist yet.
        """
        for name in sorted(pipeline.inputs()):
            config = catalog.config_resolver.resolve_pattern(name)
            path = str(config.get("filepath") or config.get("path") or "")
            if not path or "://" in path or Path(path).exists():
                continue
            writer = _pipeline_that_writes(name)
            if writer is not None:
                raise DataError(
                    f"{self._relative(path)} ({name}) does not exist yet; "
                    f"`{kedro_run(writer)}` writes it"
                )

    def _show(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        sentences = self._explain(error)
        if not sentences:
            self._previous_hook(kind, error, trace)
        for sentence in sentences:
            click.secho(f"Error: {sentence}", fg="red", err=True)

    def _explain(self, error: BaseException) -> list[str]:
        if type(error).__name__ == "ParameterValidationError" and self._parameters is not None:
            return self._parameters.sentences(error)
        for cause in _chain(error):
            if isinstance(cause, DecodiffError):
                return [str(cause)]
            if isinstance(cause, OSError) and cause.errno in DISK_FULL:
                where = self._relative(cause.filename) if cause.filename else str(error)
                return [
                    f"the disk is full ({where}); free some space and give the same command "
                    "again: what was finished is kept"
                ]
        configuration = type(error).__module__.startswith(("yaml", "omegaconf"))
        configuration |= type(error).__name__ == "MissingConfigException"
        if configuration or str(error).startswith(UNKNOWN_PIPELINE):
            return [" ".join(str(error).split())]
        return []

    def _relative(self, path: Any) -> str:
        try:
            return Path(path).relative_to(self._project).as_posix()
        except ValueError:
            return str(path)


def _is_shown(record: logging.LogRecord) -> bool:
    return record.levelno < HIDDEN_LEVELS[record.name]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """What an error was raised from; not what was being handled, which may have nothing to do."""
    while error is not None:
        yield error
        error = error.__cause__


def _pipeline_that_writes(dataset: str) -> str | None:
    """The smallest registered pipeline with this output."""
    from kedro.framework.project import pipelines

    pipelines.set_requested(None)  # until now only the pipelines asked for were looked at
    writers = [(len(p.nodes), name) for name, p in pipelines.items() if dataset in p.all_outputs()]
    return min(writers)[1] if writers else None
