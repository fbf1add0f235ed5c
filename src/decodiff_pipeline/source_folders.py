"""Which folders of the package a module depends on, read off its source without importing it."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def source_folders(package: Path, start: Iterable[str]) -> set[Path]:
    """Returns the package's parts that some modules need, directly or through others.

    A part is a folder just under the package (`data`, `deco`), a pipeline's folder
    (`pipelines/training`), or a module of the package itself (`errors.py`). Imports count
    wherever they stand, since heavy libraries are imported inside functions here.

    Args:
        start: Dotted names; of a package every module counts. Names from elsewhere are ignored.

    Returns:
        Existing files and folders under `package`.
    """
    pending = {file for name in start for file in _files(package, name)}
    seen: set[Path] = set()
    while pending:
        file = pending.pop()
        seen.add(file)
        for name in _imports(file, package):
            pending |= set(_module(package, name)) - seen
    return {_part(package, file) for file in seen}


def _part(package: Path, file: Path) -> Path:
    """Returns the part of the package that a file belongs to."""
    parts = file.relative_to(package).parts
    depth = 2 if parts[0] == "pipelines" else 1
    return package.joinpath(*parts[:depth])


def _files(package: Path, name: str) -> list[Path]:
    """Returns the source files behind a dotted name, all of them if it is a package."""
    head, *parts = name.split(".")
    folder = package.joinpath(*parts)
    if head == package.name and parts and folder.is_dir():
        return sorted(folder.rglob("*.py"))
    return _module(package, name)


def _module(package: Path, name: str) -> list[Path]:
    """Returns the file of a dotted name, which may end in something defined in a module."""
    head, *parts = name.split(".")
    if head != package.name:
        return []
    while parts:
        path = package.joinpath(*parts)
        if path.with_suffix(".py").is_file():
            return [path.with_suffix(".py")]
        if (path / "__init__.py").is_file():
            return [path / "__init__.py"]
        parts.pop()
    return []


def _imports(file: Path, package: Path) -> Iterator[str]:
    """Yields the dotted names that a file imports, relative ones made absolute."""
    here = [package.name, *file.relative_to(package).parts[:-1]]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), filename=str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)
