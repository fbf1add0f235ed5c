"""Finds the commands in Markdown and checks them without running them."""

from __future__ import annotations

import argparse
import importlib.util
import re
import runpy
import shlex
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml
from kedro.framework.project import pipelines
from kedro.validation.parameter_validator import ParameterValidator
from kedro.validation.type_extractor import TypeExtractor

from decodiff_pipeline.config_loader import ConfigLoader

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
PROGRAMS = ("kedro", "python", "make", "dvc", "mlflow", "pip", "decodiff-pipeline")
# What else may begin a command in a block; anything else is a misspelt program.
OTHERS = {
    "apt-get", "base64", "cd", "cp", "curl", "docker", "done", "export", "flock", "for", "gh",
    "git", "kubectl", "mkdir", "printf", "sbatch", "server.sh", "source", "srun", "ssh", "sudo",
    "tail",
}  # fmt: skip
# Folders whose files are in the repository; those of data/ and of other environments are made.
KEPT = re.compile(
    r"(?:src|tests|benchmarks|docs|deploy|\.github|conf/(?:base|mvtec|visa|embedded))/"
)


def pages() -> dict[str, str]:
    """Every page that is written by hand: path in the repository → text."""
    own = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    texts = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in own}
    return {name: text for name, text in texts.items() if name != "docs/parameters.md"}


def blocks(text: str, language: str) -> list[str]:
    """Content of the fenced blocks of a language."""
    return [content for name, content in FENCE.findall(text) if name == language]


def spans(text: str) -> list[str]:
    """Code within prose, each in one line."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", FENCE.sub("", text))]


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a page, variables filled in: in blocks, and programs named in prose."""
    for block in blocks(text, "bash"):
        yield from split(block)
    for span in spans(text):
        shown = "…" not in span and "[--" not in span
        if shown and re.match(r"(kedro run|python -m|make) ", span):
            yield from split(span)


def split(script: str) -> Iterator[list[str]]:
    """The simple commands of a shell script."""
    script = re.sub(r"\s# .*$", "", re.sub(r"<\w+>", "elpv", script), flags=re.MULTILINE)
    lexer = shlex.shlex(script.replace("\\\n", " "), posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace, lexer.commenters, lexer.whitespace_split = " \t\r", "", True
    words: list[str] = []
    variables: dict[str, str] = {}
    redirected = False
    for word in [*lexer, ";"]:
        if not set(word) <= set("();<>|&\n"):
            if not redirected:
                words.append(re.sub(r"\$(\w+)", lambda m: variables.get(m[1], m[0]), word))
            redirected = False
            continue
        redirected = bool(set(word) & set("<>"))
        if redirected:
            continue
        if words[:1] == ["for"]:
            variables[words[1]] = words[3]
        while words and (words[0] == "do" or re.match(r"\w+=", words[0])):
            name, _, value = words.pop(0).partition("=")
            variables[name] = value
        if words:
            yield words
        words = []


def check(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Check a command.

    Raises:
        Exception: It would not start.
    """
    program, arguments = words[0].rpartition("/")[2], words[1:]
    for word in arguments:
        if KEPT.match(word):
            assert (ROOT / word.partition(":")[0]).exists(), f"there is no {word}"
    if program in PROGRAMS:
        with monkeypatch.context() as patched:
            globals()[f"_{program.replace('-', '_')}"](arguments, patched)
    else:
        assert program in OTHERS, f"{program} is no known program"


def _kedro(arguments: list[str], _: pytest.MonkeyPatch) -> None:
    from decodiff_pipeline.cli import run

    if arguments[0] != "run":
        assert arguments[0] in {"viz", "registry"}
        return
    given = run.make_context("kedro run", arguments[1:]).params
    names = [name for text in given["pipelines"] or () for name in text.split(",")]
    chosen = {name: pipelines[name] for name in names or ["__default__"]}
    together = sum(chosen.values(), start=type(pipelines["train"])([]))
    together.filter(
        from_nodes=given["from_nodes"] or None,
        to_nodes=given["to_nodes"] or None,
        node_names=given["node_names"] or None,
    )
    read = {name.removeprefix("params:") for name in together.inputs() if ":" in name}
    assert set(given["params"]) <= read, f"{names} do not read {set(given['params']) - read}"
    values = parameters(given["env"] or "base", given["params"])
    ParameterValidator(chosen).validate_raw_params(values)


def parameters(environment: str, given: dict[str, Any]) -> dict[str, Any]:
    """The values of an environment, or of ``base`` for one that only the text has."""
    known = (ROOT / "conf" / environment).is_dir()
    loader = ConfigLoader(
        str(ROOT / "conf"),
        env=environment if known else "base",
        base_env="base",
        default_run_env="local",
        runtime_params=given,
    )
    return loader["parameters"]


class Parsed(Exception):
    """The arguments of a program are understood, and it ends here."""


def _python(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if arguments[:1] == ["-c"]:
        return compile(arguments[1], "python -c", "exec") and None
    if arguments[0] == "-m":
        module, rest = arguments[1], arguments[2:]
    else:
        module, rest = arguments[0].removesuffix(".py").replace("/", "."), arguments[1:]
    if module in {"pytest", "sphinx"}:
        assert not [word for word in rest if "/" in word and not (ROOT / word).exists()]
        return None
    if module == "benchmarks":
        assert not [name for name in rest if not (ROOT / "benchmarks" / f"{name}.py").is_file()]
        return None
    files = [p for base in (ROOT, ROOT / "src") if (p := _file(base, module)).is_file()]
    if not files:  # of another package, which may start a module of ours
        assert not module.startswith(("decodiff_pipeline", "benchmarks")), f"no module {module}"
        assert importlib.util.find_spec(module), f"no module {module}"
        return _python(rest[rest.index("-m") :], monkeypatch) if "-m" in rest else None
    (file,) = files
    if "argparse" not in file.read_text("utf-8"):
        assert not [word for word in rest if word.startswith("-")], f"{module} has no options"
        return None
    parse = argparse.ArgumentParser.parse_args

    def end(parser: argparse.ArgumentParser, given: Any = None, names: Any = None) -> None:
        raise Parsed(parse(parser, given, names))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", end)
    monkeypatch.setattr(sys, "argv", [module, *rest])
    try:
        runpy.run_module(module, run_name="__main__")
    except Parsed:
        return None
    except SystemExit as error:
        raise AssertionError(f"{module} does not take {rest}") from error
    raise AssertionError(f"{module} parses no arguments")


def _file(base: Path, module: str) -> Path:
    return (base / module.replace(".", "/")).with_suffix(".py")


def _make(arguments: list[str], _: pytest.MonkeyPatch) -> None:
    """A target of this project's Makefile, or of one that ``decodiff-pipeline init`` made."""
    files = [*ROOT.glob("*.mk"), *(ROOT / "src").rglob("Makefile"), ROOT / "Makefile"]
    makefiles = "\n".join(path.read_text("utf-8") for path in files)
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefiles, flags=re.MULTILINE))
    assert {word for word in arguments if "=" not in word} <= targets


def _dvc(arguments: list[str], _: pytest.MonkeyPatch) -> None:
    from dvc.cli.parser import get_main_parser

    try:
        options = get_main_parser().parse_args(arguments)
    except SystemExit as error:
        raise AssertionError(f"dvc does not take {arguments}") from error
    for setting in getattr(options, "set_param", None) or []:
        file, _, assignment = setting.partition(":")
        key = assignment.partition("=")[0]
        model = models()[key.lstrip("+").partition(".")[0]]
        assert has(model, key.split(".")[1:]), f"there is no parameter {key}"
        values = yaml.safe_load((ROOT / file).read_text("utf-8"))
        for part in [] if key.startswith("+") else key.split("."):
            assert part in values, f"{file} does not set {key}"
            values = values[part]


def _mlflow(arguments: list[str], _: pytest.MonkeyPatch) -> None:
    from mlflow.cli import cli

    _click(cli, arguments)


def _decodiff_pipeline(arguments: list[str], _: pytest.MonkeyPatch) -> None:
    from decodiff_pipeline.new_project import main

    _click(main, arguments)


def _click(command: Any, arguments: list[str]) -> None:
    import click

    context = click.Context(command)
    while isinstance(command, click.Group):
        name, command, arguments = command.resolve_command(context, arguments)
        assert command is not None, f"there is no command {name}"
        context = click.Context(command, parent=context)
    command.make_parser(context).parse_args(arguments)


def _pip(arguments: list[str], _: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for word in arguments:
        for extras in re.findall(r"decodiff-pipeline\[(.*)\]", word):
            assert set(extras.split(",")) <= set(project["optional-dependencies"])


def models() -> dict[str, Any]:
    """Group of parameters → its pydantic model, of all pipelines."""
    return dict(TypeExtractor(dict(pipelines)).extract_types_from_pipelines())


def has(model: Any, path: list[str]) -> bool:
    """Whether a model has such a (nested) field; of a mapping, every name."""
    for name in path:
        fields = getattr(model, "__pydantic_fields__", None)
        if fields is None:
            return True
        if name not in fields:
            return False
        model = _model_in(fields[name].annotation)
    return True


def _model_in(annotation: Any) -> Any:
    if hasattr(annotation, "__pydantic_fields__"):
        return annotation
    found = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in found if model is not None), None)
