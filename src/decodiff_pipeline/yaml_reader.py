"""Configuration as it was typed: YAML in which only what looks like a number becomes one.

YAML 1.1 reads ``01`` as 1, ``2024_05`` as 202405, ``1:30`` as 90, ``off`` as false. Here a plain
value becomes a number, a truth value or null only where nothing of its spelling is lost; the rest
stays text, which pydantic turns into a number where a parameter is one.
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
# What PyYAML says → what to do; the first that is part of the complaint.
CURES = {
    r"'\t'": "indent with spaces, not with tabs",
    "mapping values are not allowed": "write a value with ': ' in it in quotes, or indent the line "
    "as those of its group, or look for what the line above lacks (a quote, a colon)",
    "end of stream": "close the quote that begins there",
    "alias": 'write a value that begins with * in quotes, as "*.png"',
    "duplicate key": "keep one of the two",
    "escape character": "write text with a backslash in single quotes",
    "a key is no text": "write 'name: value'",
    "flow sequence": "close the bracket [ that begins there, and put commas between the values",
    "flow mapping": "close the brace { that begins there, and put commas between the values",
    "expected": "indent the line as those of its group, and write it as 'name: value'",
}


def plain_value(text: str) -> str | int | float | bool | None:
    """A value without quotes: a number or a truth value only where `str` spells it the same."""
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
        """Keys are text, each once."""
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
    """The content of a YAML text.

    Raises:
        ConfigurationError: It is no YAML; the message names the line and the cure.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (it is a SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{source}{_complaint(error, text)}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{source} is not valid YAML: {error}") from error


def read_mapping(file: Path) -> dict[str, Any]:
    """The content of a YAML or JSON file that maps names to values; an empty file is empty.

    Raises:
        ConfigurationError: It cannot be read or is something else.
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
            f"{file} holds {content!r:.60}, and no names with values: write it as 'name: value'."
        )
    return content


def config_files(loader: OmegaConfigLoader, key: str, environment: str) -> list[Path]:
    """The files of one kind, such as ``parameters``, in an environment's folder, sorted."""
    from pathlib import Path

    folder = Path(loader.conf_source) / environment
    found = {
        file
        for pattern in loader.config_patterns[key]
        for file in folder.glob(pattern)
        if file.is_file() and file.suffix in SUFFIXES
    }
    hidden = loader.ignore_hidden
    return sorted(
        file
        for file in found
        if not (hidden and any(part[0] == "." for part in file.relative_to(folder).parts))
    )


def parse_parameters(text: str) -> dict[str, Any]:
    """What ``--params`` says: ``name=value``, separated by commas, as dotted name → value.

    A value is taken as it was typed. One in quotes, brackets or braces is read as YAML, and its
    commas are its own.

    Raises:
        ConfigurationError: An item is no ``name=value``, or a name comes twice.
    """
    found: dict[str, Any] = {}
    name = ""
    for item in _items(text):
        before, (name, equals, value) = name, item.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name:
            last = before or "name"
            raise ConfigurationError(
                f"--params: {item!r} is not name=value. Write a list in brackets, "
                f"--params '{last}=[a,b]', and a value with a comma in quotes, "
                f"--params \"{last}='a,b'\""
            )
        if name in found:
            raise ConfigurationError(f"--params sets {name!r} twice: keep one of the two")
        if value[:1] in {"[", "{", "'", '"'}:
            quoted = value.replace("'", "''")
            try:
                found[name] = parse(value, f"--params {name}")
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"--params: the value of {name} is {value!r}, whose quotes or brackets do not "
                    f"match; write text that begins so in quotes, \"{name}='{quoted}'\""
                ) from error
        else:
            found[name] = plain_value(value)
    return found


def _items(text: str) -> Iterator[str]:
    """Splits at the commas outside of quotes and brackets."""
    start, depth, quote, before = 0, 0, "", " "
    for position, character in enumerate(text):
        opens = depth or before in "='\""
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and opens and before in f"=[{{,:{character}":
            quote = character  # after one of its kind: a quote that is doubled, and so no end
        elif character in "[{" and opens:
            depth += 1
        elif character in "]}" and depth:
            depth -= 1
        elif character == "," and not depth:
            yield text[start:position].strip()
            start = position + 1
        before = before if character.isspace() else character
    if text[start:].strip():
        yield text[start:].strip()


def _complaint(error: yaml.YAMLError, text: str) -> str:
    """Returns ", line 3: what is wrong, in `the line`: the cure."""
    context = getattr(error, "context", None) or ""
    problem = getattr(error, "problem", None) or str(error)
    whole = f"{context} {problem}"
    opened = context.startswith(("while scanning a quoted", "while parsing a flow"))
    mark = getattr(error, "context_mark" if opened else "problem_mark", None)
    cure = next((cure for part, cure in CURES.items() if part in whole), QUOTE)
    if mark is None:
        return f" is not valid YAML ({problem}): {cure}."
    problem = problem.split(", but")[0].removeprefix("but ")
    lines = text.splitlines()
    line = lines[mark.line].strip() if mark.line < len(lines) else ""
    return f", line {mark.line + 1}: {problem} in `{line:.80}`: {cure}."
