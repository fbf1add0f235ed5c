"""Loads a Kedro project's pipelines and configuration, and finds the sources that modules use."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.dvc_lock import BASE
from decodiff_pipeline.yaml_reader import read_mapping

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kedro.pipeline import Pipeline


@dataclass(frozen=True)
class Project:
    """Pipelines and configuration of a Kedro project in one environment."""

    root: Path  # project folder
    package: Path  # folder of its Python package
    pipelines: Mapping[str, Pipeline]  # registered pipelines by name
    catalog: Mapping[str, Any]  # data set name → configuration
    # Top-level parameter or global → file that defines it, relative to `root`.
    parameter_files: Mapping[str, str]
    globals_files: Mapping[str, str]
    environment: str | None = None  # None for base and local, which use the root's `dvc.yaml`
    parameters: Mapping[str, Any] = field(default_factory=dict)  # without --params


def load_project(root: Path, environment: str | None = None) -> Project:
    """Load a Kedro project's pipelines and the configuration of an environment.

    Raises:
        ConfigurationError: The environment does not exist, or a file of it is no YAML mapping.
    """
    from kedro.framework.project import pipelines, settings
    from kedro.framework.startup import bootstrap_project

    metadata = bootstrap_project(root)
    source = root / settings.CONF_SOURCE
    name = "base" if environment in BASE else str(environment)
    loader = settings.CONFIG_LOADER_CLASS(
        conf_source=str(source), env=name, **settings.CONFIG_LOADER_ARGS
    )
    catalog = loader["catalog"]
    files: dict[str, dict[str, str]] = {"parameters": {}, "globals": {}}
    for folder in dict.fromkeys((source / "base", source / name)):
        for path in sorted(folder.rglob("*.yml")):
            kind = path.relative_to(folder).parts[0]
            for prefix, key_files in files.items():
                if kind.startswith(prefix):
                    file = path.relative_to(root).as_posix()
                    key_files.update(dict.fromkeys(read_mapping(path), file))
    return Project(
        root=root,
        package=_package_folder(metadata.source_dir / metadata.package_name),
        pipelines=pipelines,
        catalog=catalog,
        parameter_files=files["parameters"],
        globals_files=files["globals"],
        environment=None if name == "base" else name,
        parameters=loader["parameters"],
    )


def _package_folder(folder: Path) -> Path:
    """The package's folder in the project, or where it is installed."""
    spec = None if folder.is_dir() else importlib.util.find_spec(folder.name)
    return Path(spec.origin).parent if spec is not None and spec.origin else folder


def source_folders(package: Path, modules: Iterable[str]) -> set[Path]:
    """The parts of a package that modules import, directly or transitively.

    A part is a folder directly in the package (`data`, `deco`), a pipeline's folder
    (`pipelines/training`), or a module directly in the package (`errors.py`). Imports inside
    functions count, because heavy libraries are imported there.

    Args:
        modules: Dotted names; a package stands for all its modules, and names of other packages
            are ignored.

    Returns:
        Existing files and folders in `package`.
    """
    pending = {file for name in modules for file in _files(package, name)}
    seen: set[Path] = set()
    while pending:
        file = pending.pop()
        seen.add(file)
        for name in _imports(file, package):
            pending |= set(_module(package, name)) - seen
    return {_part(package, file) for file in seen}


def _part(package: Path, file: Path) -> Path:
    """The part of the package that contains a file."""
    parts = file.relative_to(package).parts
    depth = 2 if parts[0] == "pipelines" else 1
    return package.joinpath(*parts[:depth])


def _files(package: Path, name: str) -> list[Path]:
    """The source files of a dotted name; all files of a package."""
    head, *parts = name.split(".")
    folder = package.joinpath(*parts)
    if head == package.name and parts and folder.is_dir():
        return sorted(folder.rglob("*.py"))
    return _module(package, name)


def _module(package: Path, name: str) -> list[Path]:
    """The file of a dotted name, which may end in a class or function of the module."""
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
    """The absolute dotted names that a file imports."""
    here = [package.name, *file.relative_to(package).parts[:-1]]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), filename=str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)
