"""The commands, parameters, files and links in the documentation exist."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from kedro.framework.startup import bootstrap_project
from kedro.validation.parameter_validator import ParameterValidator
from omegaconf import OmegaConf
from tests.documented_commands import (
    KEPT,
    ROOT,
    blocks,
    check,
    commands,
    has,
    models,
    pages,
    parameters,
    spans,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGES = pages()
FILES = (".json", ".jsonl", ".html", ".md", ".py", ".yml", ".parquet", ".png", ".onnx")


@pytest.fixture(scope="module", autouse=True)
def _project() -> Iterator[None]:
    before = Path.cwd()
    os.chdir(ROOT)
    bootstrap_project(ROOT)
    yield
    os.chdir(before)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
@pytest.mark.parametrize("page", PAGES)
def test_every_command_would_start(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = []
    for words in commands(PAGES[page]):
        try:
            check(words, monkeypatch)
        except (Exception, SystemExit) as error:
            wrong.append(f"{' '.join(words)}\n    {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES)
def test_parameters_and_files_named_in_prose_exist(page: str) -> None:
    groups = models()
    for code in spans(PAGES[page]):
        key = re.match(r"([a-z_]+)\.([a-z_]+(?:\.[a-z_]+)*)(?=[=:]|$)", code)
        if key and key[1] in groups and not code.endswith(FILES):
            assert has(groups[key[1]], key[2].split(".")), f"there is no parameter {code}"
        if KEPT.match(code) and not re.search(r"[<*… ]", code):
            assert (ROOT / code.partition(":")[0]).exists(), f"there is no {code}"
        for variable in re.findall(r"DECODIFF_\w+", code):
            assert variable in known_variables(), variable


@pytest.mark.parametrize("page", PAGES)
def test_modules_and_their_options_exist(page: str) -> None:
    for module in re.findall(r"\b((?:decodiff_pipeline|benchmarks)(?:\.\w+)+)", PAGES[page]):
        assert source_of(module) is not None, module
    for code in spans(PAGES[page]):
        module, *words = code.replace("[", "").replace("]", "").split()
        if module.startswith("decodiff_pipeline."):
            options = [word for word in words if word.startswith("--")]
            text = (source_of(module) or ROOT).read_text("utf-8") if options else ""
            assert all(f'"{option}"' in text for option in options), code


def source_of(name: str) -> Path | None:
    """The file of a module, or of the module that a dotted name begins with."""
    parts = name.split(".")
    paths = [
        base.joinpath(*parts[:end])
        for end in range(len(parts), 1, -1)
        for base in (ROOT / "src", ROOT)
    ]
    files = [file for path in paths for file in (path.with_suffix(".py"), path / "__init__.py")]
    return next((file for file in files if file.is_file()), None)


@pytest.mark.parametrize("page", PAGES)
def test_what_shown_python_imports_exists(page: str) -> None:
    for block in blocks(PAGES[page], "python") + blocks(PAGES[page], "py"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("decodiff"):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), node.module


def known_variables() -> set[str]:
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    text = "".join(path.read_text("utf-8") for path in sources)
    return set(re.findall(r"DECODIFF_\w+", text))


@pytest.mark.parametrize("page", PAGES)
def test_yaml_that_is_shown_is_valid(page: str) -> None:
    for block in blocks(PAGES[page], "yaml"):
        shown: Any = yaml.safe_load(block)
        given = {name: value for name, value in shown.items() if name in models()}
        merged = OmegaConf.merge(parameters("base", {}), given)
        validator = ParameterValidator({})
        validator._apply_validation(
            OmegaConf.to_container(merged), {name: models()[name] for name in given}
        )


def anchors(page: str) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    prose = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = ROOT / page if not name else (ROOT / page).parent / name
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text("utf-8")), link


def test_the_python_tutorial_trains_a_detector_that_finds_the_defects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, Any] = {}
    for cell in json.loads((ROOT / "docs" / "python.ipynb").read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)  # noqa: S102 - our own notebook
    out, defective = names["out"], names["defective"]
    assert names["metrics"]["image_auroc"] > 0.9
    assert set(names["answers"]) == {f"{number}.png" for number in range(8)}
    assert names["more"].sum() >= out.decisions.count("defective") > 8
    assert names["baseline"]["image_auroc"] > 0.9
    flagged = np.array(out.decisions) == "defective"
    assert flagged[defective].mean() > flagged[~defective].mean() + 0.5
    assert out.full_size_maps[0].shape == (96, 96)
