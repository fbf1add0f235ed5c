"""The configuration files as they were typed, and how `--params` meets them."""

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
    """Reads parameters and globals as they were typed, and says what is wrong in which line.

    Runtime parameters change what they name, and nothing beside it. Kedro lays them over the base
    and over the environment, and then the environment over the base, where a group of the one
    takes the place of the other's: with any parameter in the environment,
    ``--params scoring.fit=none`` would lose all that the base says of ``scoring``. Here they are
    laid over the result.

    In a catalog, ``${parameter:inference.source,data/inference}`` is the parameter of that name,
    wherever it is set, and what follows the comma where it is null or missing.

    A configuration that is no folder (an archive, a bucket) is read by Kedro alone.
    """

    def __getitem__(self, key: str) -> dict[str, Any]:
        """The configuration of a kind, such as ``parameters`` or ``catalog``.

        Raises:
            ConfigurationError: A file or folder is not what it should be.
        """
        if key == "catalog":
            parameters = OmegaConf.create(self["parameters"])
            resolver = partial(_parameter, parameters)
            OmegaConf.register_new_resolver("parameter", resolver, replace=True)
        if key in self or key not in self.config_patterns or not Path(self.conf_source).is_dir():
            return super().__getitem__(key)
        stated: dict[str, Any] = {}
        for environment in dict.fromkeys((self.base_env, self.env or self.default_run_env)):
            stated |= self._stated(key, environment)
        if key == "parameters" and self.runtime_params:
            merged: Any = OmegaConf.merge(stated, self.runtime_params)
            return _resolved(merged)
        if key == "globals" and "dataset" in stated:
            stated["dataset"] = _name(stated["dataset"])
        return stated if key in {"parameters", "globals"} else super().__getitem__(key)

    def _stated(self, key: str, environment: str) -> dict[str, Any]:
        """What the files of one environment say."""
        folder = Path(self.conf_source, environment)
        if not folder.is_dir():
            there = sorted(path.name for path in folder.parent.iterdir() if path.is_dir())
            raise ConfigurationError(
                f"there is no folder {folder} for the environment {environment!r}: make it, or "
                f"use one of {', '.join(there)}"
            )
        files = {file: read_mapping(file) for file in config_files(self, key, environment)}
        if key not in {"parameters", "globals"}:  # Kedro reads it again
            return {}
        places: dict[str, Path] = {}
        for file, content in files.items():
            for name in _leaves(content):
                if places.setdefault(name, file) != file:
                    raise ConfigurationError(
                        f"{file} and {places[name]} both set {name!r}: keep one of the two"
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
    """Dotted names of what is no group; those that begin with an underscore are for reference."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from (f"{name}.{below}" for below in _leaves(value))
        elif not name.startswith("_"):
            yield name


def _name(value: Any) -> str:
    name = as_text(value)
    if not isinstance(name, str):
        raise ConfigurationError(
            f"globals.yml: dataset is {value!r}, which names no folder of data/01_raw; write a "
            "name that YAML reads as something else in quotes, such as dataset: 'null'"
        )
    return name
