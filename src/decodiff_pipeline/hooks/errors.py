"""Prints errors that a user can fix as one sentence instead of a traceback."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.hooks import hook_impl
from pydantic import TypeAdapter, ValidationError

from decodiff_pipeline.commands import kedro_run, use_environment
from decodiff_pipeline.errors import DataError, DecodiffError
from decodiff_pipeline.yaml_reader import config_files, read_mapping

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from kedro.framework.context import KedroContext
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline

TRACEBACK_VARIABLE = "DECODIFF_TRACEBACK"
VALIDATION_LOGGER = "kedro.validation.parameter_validator"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# Log messages from these levels on are hidden: the error of a node is printed at the end, and
# Kedro's advice to resume from a node would use the old validation report after a fix of the data.
HIDDEN_LEVELS = {
    "kedro.pipeline.node": logging.ERROR,
    "kedro.runner.sequential_runner": logging.WARNING,
}
UNKNOWN_PIPELINE = "Failed to find the pipeline named"
UNKNOWN_KEY = {"extra_forbidden", "unexpected_keyword_argument"}  # pydantic's error types


class ErrorHooks:
    """Print errors that a user can fix as one sentence; the exit code stays 1.

    An exception of a node ends the process, and ``sys.excepthook`` prints it. This class replaces
    that hook for `DecodiffError`, invalid parameters and a full disk. Other errors keep their
    traceback; with ``DECODIFF_TRACEBACK=1`` all errors do.
    """

    def __init__(self) -> None:
        self._project = Path()
        self._parameters: ParameterErrors | None = None
        self._installed = False

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Replace the exception hook; Kedro validates the parameters after this hook."""
        self._project = Path(context.project_path)
        use_environment(context.env, context.config_loader.runtime_params)
        self._parameters = ParameterErrors(context)
        if os.environ.get(TRACEBACK_VARIABLE):
            return
        # Its log messages repeat the error that it raises.
        logging.getLogger(VALIDATION_LOGGER).setLevel(logging.CRITICAL)
        if not self._installed:
            self._installed = True
            for name in HIDDEN_LEVELS:
                logging.getLogger(name).addFilter(_is_shown)
            self._previous_hook = sys.excepthook
            sys.excepthook = self._show

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Check that the input files exist that other pipelines write.

        Raises:
            DataError: A file is missing; the message names the pipeline that writes it.
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
                file = self._relative(cause.filename) if cause.filename else str(error)
                return [
                    f"the disk is full ({file}); free some space and run the same command again: "
                    "finished work is kept"
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
    """An error and its explicit causes, without errors that were merely being handled."""
    while error is not None:
        yield error
        error = error.__cause__


def _pipeline_that_writes(dataset: str) -> str | None:
    """The smallest registered pipeline with this output."""
    from kedro.framework.project import pipelines

    pipelines.set_requested(None)  # loads all pipelines, not only the requested ones
    writers = [(len(p.nodes), name) for name, p in pipelines.items() if dataset in p.all_outputs()]
    return min(writers)[1] if writers else None


class ParameterErrors:
    """Explains an error of Kedro's parameter validation, with a sentence for each invalid key.

    Kedro's error contains pydantic's messages only as text of five lines each, so the parameters
    that it names are validated again.
    """

    def __init__(self, context: KedroContext) -> None:
        self._context = context

    def sentences(self, error: BaseException) -> list[str]:
        """The sentences; the error's own text if it names no known parameter."""
        from kedro.framework.project import pipelines
        from kedro.validation import TypeExtractor

        models = TypeExtractor(dict(pipelines)).extract_types_from_pipelines()
        names = dict.fromkeys(re.findall(r"^- Parameter '([^']+)'", str(error), re.MULTILINE))
        sentences = [
            sentence
            for name in names
            if name in models
            for sentence in self._validation_errors(name, models[name])
        ]
        return sentences or [str(error)]

    def _validation_errors(self, parameter: str, model: Any) -> Iterator[str]:
        try:
            TypeAdapter(model).validate_python(self._value(parameter))
        except ValidationError as error:
            for detail in error.errors():
                yield self._sentence(parameter, model, detail)
        except DecodiffError as error:
            yield f"{self._where([parameter])}: {error}"

    def _value(self, parameter: str) -> Any:
        value: Any = self._context.config_loader["parameters"]
        for key in parameter.split("."):
            value = value[key]
        return value

    def _sentence(self, parameter: str, model: Any, detail: Mapping[str, Any]) -> str:
        path = [parameter, *(str(part) for part in detail["loc"])]
        key, where = ".".join(path), self._where(path)
        if detail["type"] in UNKNOWN_KEY:
            known = _field_names(model, path[1:-1])
            close = get_close_matches(path[-1], known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(known)}"
            return f"{where}: there is no parameter {key!r}; {hint}"
        if detail["type"] == "missing":
            return f"{where}: parameter {key!r} is missing"
        message = detail["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        message = _cure(path[-1], detail) or message
        if not detail["loc"]:  # a rule for several keys, whose message names them
            return f"{where}: {key}: {message}"
        given = "null" if detail["input"] is None else repr(detail["input"])
        return f"{where}: {key} is {given}; {message}"

    def _where(self, path: Sequence[str]) -> str:
        """``--params``, or the file that sets a key or, if none does, the closest parent key."""
        loader: Any = self._context.config_loader
        if _has_key(loader.runtime_params or {}, path):
            return "--params"
        root = Path(loader.conf_source)
        environments = [loader.env or loader.default_run_env, loader.base_env]
        for key in (path, path[:-1], path[:1]):
            for environment in environments:
                for file in config_files(loader, "parameters", environment):
                    if _has_key(read_mapping(file), key):
                        return file.relative_to(root.parent).as_posix()
        return "parameters"


def _cure(name: str, detail: Mapping[str, Any]) -> str:
    """How to fix a value of the wrong type; empty if pydantic's message is clear."""
    value = detail["input"]
    if detail["type"] in {"tuple_type", "list_type"}:
        return f"write a list, {name}: [{value}] (--params '….{name}=[a,b]')"
    if detail["type"] == "string_type" and value is None:
        return "quote the name null, 'null', because YAML reads it as no value"
    if detail["type"] == "string_type":
        return "write one value, and quote it if it contains brackets, braces or ': '"
    return ""


def _field_names(model: Any, path: Sequence[str]) -> list[str]:
    """Field names of a (nested) pydantic model or dataclass; empty for other types."""
    for name in path:
        field = getattr(model, "__pydantic_fields__", {}).get(name)
        model = None if field is None else field.annotation
    return list(getattr(model, "__pydantic_fields__", {}))


def _has_key(tree: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return True
