"""A YAML parser that converts a value only if no information is lost.

YAML 1.1 reads ``01`` as 1, ``2024_05`` as 202405, ``1:30`` as 90 and ``off`` as false. This parser
converts an unquoted value to a number or boolean only if `str` of the result is the same text.
Other values stay text; pydantic converts them where a parameter is a number.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import yaml

from decodiff_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kedro.config import OmegaConfigLoader

NULLS = {"", "~", "null", "Null", "NULL"}
SUFFIXES = {".yml", ".yaml", ".json"}
PLAIN = "!plain"
MERGE = "tag:yaml.org,2002:merge"
QUOTE = "write a value with such characters in quotes"
# Part of PyYAML's message → how to fix the file; the first match applies.
CURES = {
    r"'\t'": "indent with spaces, not with tabs",
    "mapping values are not allowed": "quote a value that contains ': ', or indent the line like "
    "the others of its group, or add the quote or colon that the line above lacks",
    "end of stream": "close the quote that begins there",
    "alias": 'write a value that begins with * in quotes, as "*.png"',
    "duplicate key": "keep one of the two",
    "escape character": "write text with a backslash in single quotes",
    "a key is no text": "write 'name: value'",
    "flow sequence": "close the bracket [ that begins there, and put commas between the values",
    "flow mapping": "close the brace { that begins there, and put commas between the values",
    "expected": "indent the line like the others of its group, and write it as 'name: value'",
}


def plain_value(text: str) -> str | int | float | bool | None:
    """Convert an unquoted value to null, a boolean or a number if `str` gives the same text."""
    if text in NULLS:
        return None
    if text in {"true", "false"}:
        return text == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if math.isfinite(value) and str(value) == text:
            return value
    return text


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 (the name is PyYAML's)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping; keys must be text and unique."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is no text", problem_mark=key.start_mark)
            if key.tag == PLAIN:
                key.tag = "tag:yaml.org,2002:str"
            if key.value in seen and key.tag != MERGE:
                raise yaml.MarkedYAMLError(
                    problem=f"duplicate key {key.value!r}", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(MERGE, re.compile(r"^<<$"), ["<"])
_Loader.add_implicit_resolver(PLAIN, re.compile(r"", re.DOTALL), None)
_Loader.add_constructor(PLAIN, lambda _, node: plain_value(node.value))


def parse(text: str, source: str) -> Any:
    """Parse YAML.

    Args:
        source: File or option, for error messages.

    Raises:
        ConfigurationError: The text is not valid YAML; the message names the line and the fix.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (it is a SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{source}{_complaint(error, text)}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{source} is not valid YAML: {error}") from error


def read_mapping(file: Path) -> dict[str, Any]:
    """Read a YAML or JSON file that maps names to values; {} for an empty file.

    Raises:
        ConfigurationError: The file cannot be read or is not a mapping.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(
            f"{file} cannot be read ({error.strerror}): make it readable."
        ) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigurationError(
            f"{file}, line {line}: byte {error.object[error.start]:#04x} is not UTF-8: save the "
            "file as UTF-8."
        ) from error
    content = parse(text, str(file))
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{file} contains {content!r:.60}, not names with values: write it as 'name: value'."
        )
    return content


def config_files(loader: OmegaConfigLoader, key: str, environment: str) -> list[Path]:
    """The files of one kind, such as ``parameters``, in an environment's folder, sorted."""
    from pathlib import Path

    folder = Path(loader.conf_source) / environment
    files = {
        file
        for pattern in loader.config_patterns[key]
        for file in folder.glob(pattern)
        if file.is_file() and file.suffix in SUFFIXES
    }
    hidden = loader.ignore_hidden
    return sorted(
        file
        for file in files
        if not (hidden and any(part[0] == "." for part in file.relative_to(folder).parts))
    )


def parse_parameters(text: str) -> dict[str, Any]:
    """Parse ``--params``: comma-separated ``name=value`` items.

    A value in quotes, brackets or braces is parsed as YAML and may contain commas; any other value
    is converted by `plain_value`.

    Returns:
        Dotted name → value.

    Raises:
        ConfigurationError: An item is not ``name=value``, or a name is repeated.
    """
    parameters: dict[str, Any] = {}
    name = ""
    for item in _items(text):
        previous, (name, equals, value) = name, item.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name:
            last = previous or "name"
            raise ConfigurationError(
                f"--params: {item!r} is not name=value. Write a list in brackets, "
                f"--params '{last}=[a,b]', and a value with a comma in quotes, "
                f"--params \"{last}='a,b'\""
            )
        if name in parameters:
            raise ConfigurationError(f"--params sets {name!r} twice: keep one of the two")
        if value[:1] in {"[", "{", "'", '"'}:
            quoted = value.replace("'", "''")
            try:
                parameters[name] = parse(value, f"--params {name}")
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"--params: the value of {name} is {value!r}, whose quotes or brackets do not "
                    f"match; quote text that begins with such a character, \"{name}='{quoted}'\""
                ) from error
        else:
            parameters[name] = plain_value(value)
    return parameters


def _items(text: str) -> Iterator[str]:
    """Split at the commas outside of quotes and brackets."""
    start, depth, quote, previous = 0, 0, "", " "
    for position, character in enumerate(text):
        opens = depth or previous in "='\""
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and opens and previous in f"=[{{,:{character}":
            quote = character  # directly after the same quote: an escaped (doubled) quote
        elif character in "[{" and opens:
            depth += 1
        elif character in "]}" and depth:
            depth -= 1
        elif character == "," and not depth:
            yield text[start:position].strip()
            start = position + 1
        previous = previous if character.isspace() else character
    if text[start:].strip():
        yield text[start:].strip()


def _complaint(error: yaml.YAMLError, text: str) -> str:
    """The end of an error message: ``, line 3: PROBLEM in `LINE`: FIX.``"""
    context = getattr(error, "context", None) or ""
    problem = getattr(error, "problem", None) or str(error)
    message = f"{context} {problem}"
    unclosed = context.startswith(("while scanning a quoted", "while parsing a flow"))
    mark = getattr(error, "context_mark" if unclosed else "problem_mark", None)
    cure = next((cure for part, cure in CURES.items() if part in message), QUOTE)
    if mark is None:
        return f" is not valid YAML ({problem}): {cure}."
    problem = problem.split(", but")[0].removeprefix("but ")
    lines = text.splitlines()
    line = lines[mark.line].strip() if mark.line < len(lines) else ""
    return f", line {mark.line + 1}: {problem} in `{line:.80}`: {cure}."
