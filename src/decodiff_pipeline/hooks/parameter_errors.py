"""Wrong parameters in the words of the YAML file they stand in."""

from __future__ import annotations

import logging
import re
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from decodiff_pipeline.errors import DecodiffError
from decodiff_pipeline.yaml_reader import config_files, read_mapping

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kedro.framework.context import KedroContext

UNKNOWN_KEY = {"extra_forbidden", "unexpected_keyword_argument"}  # of a model, of a dataclass


class ParameterErrors(logging.Filter):
    """Collects what Kedro's parameter validation logs, as a sentence for each wrong key.

    Kedro turns pydantic's errors into text of five lines each and drops the original, but it logs
    while it handles them: here the original is still at hand. The record itself is dropped, as the
    sentence is shown when the process ends.

    Args:
        context: Kedro's context, which knows the configuration folders.
    """

    def __init__(self, context: KedroContext) -> None:
        super().__init__()
        self.sentences: list[str] = []
        self._context = context

    def filter(self, record: logging.LogRecord) -> bool:
        """Take an error's sentences and drop the record; let other records pass."""
        if record.levelno < logging.ERROR:
            return True
        message = record.getMessage()
        match = re.match(r"Parameter '([^']+)'", message)
        cause = sys.exc_info()[1]
        while cause is not None and cause.__cause__ is not None:
            cause = cause.__cause__
        if match is None:
            self.sentences.append(message)
        elif isinstance(cause, ValidationError):
            self.sentences += [self._sentence(match[1], detail) for detail in cause.errors()]
        elif isinstance(cause, DecodiffError):
            self.sentences.append(f"{self._where([match[1]])}: {cause}")
        else:
            self.sentences.append(f"{self._where([match[1]])}: {message}")
        return False

    def _sentence(self, parameter: str, detail: Mapping[str, Any]) -> str:
        path = [parameter, *(str(part) for part in detail["loc"])]
        key, where = ".".join(path), self._where(path)
        if detail["type"] in UNKNOWN_KEY:
            known = _field_names(self._model(parameter), path[1:-1])
            close = get_close_matches(path[-1], known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(known)}"
            return f"{where}: there is no parameter {key!r}; {hint}"
        if detail["type"] == "missing":
            return f"{where}: parameter {key!r} is missing"
        message = detail["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        message = _cure(path[-1], detail) or message
        if not detail["loc"]:  # a rule over several keys names them itself
            return f"{where}: {key}: {message}"
        given = "null" if detail["input"] is None else repr(detail["input"])
        return f"{where}: {key} is {given}; {message}"

    def _where(self, path: Sequence[str]) -> str:
        """The file that sets a key: ``--params``, the environment's or the base one."""
        loader: Any = self._context.config_loader
        if _holds(loader.runtime_params or {}, path):
            return "--params"
        root = Path(loader.conf_source)
        environments = [loader.env or loader.default_run_env, loader.base_env]
        for wanted in (path, path[:-1], path[:1]):
            for environment in environments:
                for file in config_files(loader, "parameters", environment):
                    if _holds(read_mapping(file), wanted):
                        return file.relative_to(root.parent).as_posix()
        return "parameters"

    @staticmethod
    def _model(parameter: str) -> Any:
        """The class that a parameter is validated by."""
        from kedro.framework.project import pipelines
        from kedro.validation.type_extractor import TypeExtractor

        found = TypeExtractor(dict(pipelines))  # of the pipelines that were asked for
        return found.extract_types_from_pipelines().get(parameter)


def _cure(name: str, detail: Mapping[str, Any]) -> str:
    """What to write in place of a value of the wrong kind; empty where the message says it."""
    value = detail["input"]
    if detail["type"] in {"tuple_type", "list_type"}:
        return f"write a list, {name}: [{value}] (--params '….{name}=[a,b]')"
    if detail["type"] == "string_type" and value is None:
        return "write the name null in quotes, 'null', or YAML reads it as no value"
    if detail["type"] == "string_type":
        return "write one value, in quotes where it has brackets, braces or ': ' in it"
    return ""


def _field_names(model: Any, path: Sequence[str]) -> list[str]:
    """Names that a (nested) pydantic model or dataclass takes; empty where it is neither."""
    for name in path:
        field = getattr(model, "__pydantic_fields__", {}).get(name)
        model = None if field is None else field.annotation
    return list(getattr(model, "__pydantic_fields__", {}))


def _holds(tree: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return True
