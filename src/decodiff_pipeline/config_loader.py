"""Kedro's configuration loader with a strict YAML parser and `--params` applied last."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.config import OmegaConfigLoader
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.text import as_text
from decodiff_pipeline.yaml_reader import config_files, read_mapping

if TYPE_CHECKING:
    from collections.abc import Iterator


class ConfigLoader(OmegaConfigLoader):
    """Loads parameters and globals with `yaml_reader`, whose errors name the file and the line.

    As in Kedro, a top-level group of the environment replaces the group of the base as a whole.
    Runtime parameters (``--params``) are merged into the result and change only the keys that
    they name. Kedro merges them before: ``--params scoring.fit=none`` would then drop the other
    ``scoring`` parameters of the base.

    In a catalog, ``${parameter:inference.source,data/inference}`` resolves to the parameter of
    that name, or to the value after the comma if the parameter is null or missing.

    A configuration source that is not a folder (an archive, a bucket) is read by Kedro alone.
    """

    def __getitem__(self, key: str) -> dict[str, Any]:
        """The configuration of one kind, such as ``parameters`` or ``catalog``.

        Raises:
            ConfigurationError: The environment has no folder, a file is not a YAML mapping, two
                files set the same key, or a reference cannot be resolved.
        """
        if key == "catalog":
            parameters = OmegaConf.create(self["parameters"])
            resolver = partial(_parameter, parameters)
            OmegaConf.register_new_resolver("parameter", resolver, replace=True)
        if key in self or key not in self.config_patterns or not Path(self.conf_source).is_dir():
            return super().__getitem__(key)
        values: dict[str, Any] = {}
        for environment in dict.fromkeys((self.base_env, self.env or self.default_run_env)):
            values |= self._environment_values(key, environment)
        if key == "parameters" and self.runtime_params:
            merged: Any = OmegaConf.merge(values, self.runtime_params)
            return _resolved(merged)
        if key == "globals" and "dataset" in values:
            values["dataset"] = _dataset_name(values["dataset"])
        return values if key in {"parameters", "globals"} else super().__getitem__(key)

    def _environment_values(self, key: str, environment: str) -> dict[str, Any]:
        folder = Path(self.conf_source, environment)
        if not folder.is_dir():
            existing = sorted(path.name for path in folder.parent.iterdir() if path.is_dir())
            raise ConfigurationError(
                f"there is no folder {folder} for the environment {environment!r}: make it, or "
                f"use one of {', '.join(existing)}"
            )
        files = {file: read_mapping(file) for file in config_files(self, key, environment)}
        if key not in {"parameters", "globals"}:  # Kedro loads it; here only the syntax is checked
            return {}
        set_by: dict[str, Path] = {}
        for file, content in files.items():
            for name in _leaves(content):
                if set_by.setdefault(name, file) != file:
                    raise ConfigurationError(
                        f"{file} and {set_by[name]} both set {name!r}: keep one of the two"
                    )
        OmegaConf.register_new_resolver("runtime_params", self._runtime_parameter, replace=True)
        return _resolved(OmegaConf.merge(*files.values())) if files else {}

    def _runtime_parameter(self, name: str, default: Any = ...) -> Any:
        value = OmegaConf.select(OmegaConf.create(self.runtime_params or {}), name, default=default)
        if value is ...:
            raise ConfigurationError(f"a configuration file needs {name!r}: give it with --params")
        return value


def _parameter(parameters: Any, name: str, default: Any) -> Any:
    value = OmegaConf.select(parameters, name)
    return default if value is None else as_text(value)


def _resolved(config: Any) -> dict[str, Any]:
    try:
        container: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigurationError(" ".join(str(error).split())) from error
    return {str(key): value for key, value in container.items()}


def _leaves(tree: dict[str, Any]) -> Iterator[str]:
    """Dotted names of the leaf keys, without those that begin with an underscore (YAML anchors)."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from (f"{name}.{leaf}" for leaf in _leaves(value))
        elif not name.startswith("_"):
            yield name


def _dataset_name(value: Any) -> str:
    name = as_text(value)
    if not isinstance(name, str):
        raise ConfigurationError(
            f"globals.yml: dataset is {value!r}, which is not the name of a folder in data/01_raw; "
            "quote a name that YAML does not read as text, such as dataset: 'null'"
        )
    return name
