"""Values stay as they were typed, in files and in `--params`, and a broken file says its line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import pytest
from pydantic import TypeAdapter

from decodiff_pipeline.cli import run
from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.text import Text
from decodiff_pipeline.yaml_reader import parse, plain_value, read_mapping

if TYPE_CHECKING:
    from pathlib import Path

RESPELLED = (
    "01 007 2024_05 0x10 0o17 1e5 1.50 1:30 1:30:00 2024-05-01 on off yes no True NO .inf nan inf "
    "+1 -0 12e5678 1_000.5"
).split()


@pytest.mark.parametrize("text", RESPELLED)
def test_what_yaml_would_spell_otherwise_stays_text(text: str) -> None:
    assert plain_value(text) == text
    assert parse(f"[{text}]", "f.yml") == [text]
    assert parse(f"{text}: 1", "f.yml") == {text: 1}


@pytest.mark.parametrize("text", [*RESPELLED, "20240501", "3", "-1.5", "true", "false", "1e-05"])
def test_a_text_parameter_is_as_it_was_typed(text: str) -> None:
    assert TypeAdapter(Text).validate_python(plain_value(text)) == text


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "5", 5),
        (int, "50_000_000", 50_000_000),
        (float, "1.5e-3", 0.0015),
        (float, "0.30", 0.3),
        (bool, "on", True),
        (bool, "False", False),
        (bool | None, "~", None),
    ],
)
def test_a_number_is_still_a_number(kind: Any, text: str, value: object) -> None:
    assert TypeAdapter(kind).validate_python(plain_value(text)) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 'c\nd: 2\n", r"line 2: .* `b: 'c`: close the quote"),
        ("a:\n\tb: 1", r"line 2: .*: indent with spaces, not with tabs"),
        ("a: 1\nb: 2\na: 3", r"line 3: duplicate key 'a' in `a: 3`: keep one"),
        ("a:\n  b: 1\n  b: 2", r"line 3: duplicate key 'b'"),
        ("reason: seen: twice", r"line 1: .* quote a value that contains ': '"),
        ("a:\n  b: 1\n c: 2", r"line 3: .*indent the line"),
        ("a:\n  b: 1\n   c: 2", r"line 3: .*indent the line"),
        ("exclude: [*.png]", r"line 1: .* in quotes, as \"\*.png\""),
        ("exclude: *.png", r"line 1: .* in quotes, as \"\*.png\""),
        ("a: !b c", r"line 1: .* in quotes"),
        ("a: @b", r"line 1: .* in quotes"),
        ("a: [1, 2\nb: 3", r"line 1: .*close the bracket"),
        ("a: {b: 1\nc: 2", r"line 1: .*close the brace"),
        ('a: "C:\\data"', r"line 1: .*backslash in single quotes"),
        ("- a\n- b", r"contains \['a', 'b'\], not names with values"),
        ("a", r"contains 'a', not names with values"),
        ("? [a]\n: 1", r"line 1: a key is no text"),
        (b"a: 1\nb: caf\xe9", r"line 2: byte 0xe9 is not UTF-8: save the file as UTF-8"),
        ("a: 1".encode("utf-16"), r"line 1: byte 0xff is not UTF-8"),
        (b"a: \x00", "not valid YAML"),
    ],
)
def test_a_broken_file_says_where_and_what_to_do(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    file = tmp_path / "f.yml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationError, match=f"f.yml.*{message}"):
        read_mapping(file)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("inference.source=/in/shot #2", {"inference": {"source": "/in/shot #2"}}),
        ("inference.source=/in/a: b", {"inference": {"source": "/in/a: b"}}),
        ("a.b=01, a.c=20240501", {"a": {"b": "01", "c": 20240501}}),
        ("a='01',b=\"x, y\",c='it''s'", {"a": "01", "b": "x, y", "c": "it's"}),
        ("a=[cap,'c,up',01]", {"a": ["cap", "c,up", "01"]}),
        ("a={01: 0.5, 'b': [1, 2]},c=don't", {"a": {"01": 0.5, "b": [1, 2]}, "c": "don't"}),
        ("a=null,b=,c=x=y", {"a": None, "b": None, "c": "x=y"}),
        ("", {}),
    ],
)  # fmt: skip
def test_parameters_of_the_command_line(given: str, found: dict[str, Any]) -> None:
    assert run.make_context("run", ["--params", given]).params["params"] == found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("data.categories=cap,cup", r"'cup' is not name=value.*'data.categories=\[a,b\]'"),
        ("a=1,a=2", "sets 'a' twice"),
        ("a=[old]/x", r"brackets do not match.*\"a='\[old\]/x'\""),
        ("a", "is not name=value"),
    ],
)
def test_parameters_that_cannot_be_read(given: str, message: str) -> None:
    with pytest.raises(click.UsageError, match=message):
        run.make_context("run", ["--params", given])


def test_parameters_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "run.yml").write_text("run: {params: {inference: {category: 01}}, env: other}")
    context = run.make_context("run", ["--config", str(tmp_path / "run.yml")])
    assert context.params["params"] == {"inference": {"category": "01"}}
    assert context.params["env"] == "other"
    (tmp_path / "run.yml").write_text("run: {params")
    with pytest.raises(click.UsageError, match=r"run\.yml, line 1"):
        run.make_context("run", ["--config", str(tmp_path / "run.yml")])
