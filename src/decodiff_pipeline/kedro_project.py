"""A Kedro project as it is configured: its pipelines, catalog and parameters; no data is read."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.dvc_lock import BASE
from decodiff_pipeline.yaml_reader import read_mapping

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kedro.pipeline import Pipeline


@dataclass(frozen=True)
class Project:
    """What is registered and configured, under one environment."""

    root: Path  # the project's folder
    package: Path  # the folder of its package
    pipelines: Mapping[str, Pipeline]  # every registered pipeline by name
    catalog: Mapping[str, Any]  # as configured
    # Top-level parameter or global -> file that defines it, relative to `root`.
    parameter_files: Mapping[str, str]
    globals_files: Mapping[str, str]
    environment: str | None = None  # Kedro's; None for that of the project's own `dvc.yaml`
    parameters: Mapping[str, Any] = field(default_factory=dict)  # as the files say


def load_project(root: Path, environment: str | None = None) -> Project:
    """Reads a Kedro project's registry and the configuration of an environment, and no data.

    Raises:
        ConfigurationError: There is no such environment, or a file of it is no YAML mapping.
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
            for prefix, places in files.items():
                if kind.startswith(prefix):
                    place = path.relative_to(root).as_posix()
                    places.update(dict.fromkeys(read_mapping(path), place))
    return Project(
        root=root,
        package=_package(metadata.source_dir / metadata.package_name),
        pipelines=pipelines,
        catalog=catalog,
        parameter_files=files["parameters"],
        globals_files=files["globals"],
        environment=None if name == "base" else name,
        parameters=loader["parameters"],
    )


def _package(folder: Path) -> Path:
    """The package's folder: the project's own, or where it is installed."""
    spec = None if folder.is_dir() else importlib.util.find_spec(folder.name)
    return Path(spec.origin).parent if spec is not None and spec.origin else folder
