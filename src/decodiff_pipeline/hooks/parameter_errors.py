"""Wrong parameters in the words of the YAML file they stand in."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from decodiff_pipeline.errors import DecodiffError
from decodiff_pipeline.yaml_reader import config_files, read_mapping

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kedro.framework.context import KedroContext

UNKNOWN_KEY = {"extra_forbidden", "unexpected_keyword_argument"}  # of a model, of a dataclass


class ParameterErrors:
    """Says what Kedro's parameter validation refused, as a sentence for each wrong key.

    Kedro's own error holds pydantic's as text of five lines each. Here the parameters that it
    names are validated again.

    Args:
        context: Kedro's context, which knows the configuration folders.
    """

    def __init__(self, context: KedroContext) -> None:
        self._context = context

    def sentences(self, error: BaseException) -> list[str]:
        """Explain an error of Kedro's parameter validation.

        Args:
            error: A ``ParameterValidationError``.
        """
        from kedro.framework.project import pipelines
        from kedro.validation import TypeExtractor

        # Of the pipelines that were asked for.
        models = TypeExtractor(dict(pipelines)).extract_types_from_pipelines()
        named = dict.fromkeys(re.findall(r"^- Parameter '([^']+)'", str(error), re.MULTILINE))
        found = [
            line for name in named if name in models for line in self._refused(name, models[name])
        ]
        return found or [str(error)]

    def _refused(self, parameter: str, model: Any) -> Iterator[str]:
        """What a parameter's class says of its value."""
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
