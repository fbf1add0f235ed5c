"""How `--params` meets the configuration files."""

from __future__ import annotations

from typing import Any

from kedro.config import OmegaConfigLoader
from omegaconf import OmegaConf


class ConfigLoader(OmegaConfigLoader):
    """Lets runtime parameters change what they name, and nothing beside it.

    Kedro lays them over the base and over the environment, and then the environment over the
    base, where a group of the one takes the place of the other's: with any parameter in the
    environment, ``--params scoring.fit=none`` would lose all that the base says of ``scoring``.
    Here they are laid over the result.

    In a catalog, ``${parameter:inference.source,data/inference}`` is the parameter of that name,
    wherever it is set, and what follows the comma where it is null or missing.
    """

    def __getitem__(self, key: str) -> dict[str, Any]:
        """The configuration of a kind, such as ``parameters`` or ``catalog``."""
        if key == "catalog":
            OmegaConf.register_new_resolver("parameter", self._parameter, replace=True)
        if key != "parameters" or key in self or not self.runtime_params:
            return super().__getitem__(key)
        given = self.runtime_params
        self._runtime_params_oc = OmegaConf.create(given)  # for ${runtime_params:…} in the files
        self.runtime_params = {}
        try:
            stated = super().__getitem__(key)
        finally:
            self.runtime_params = given
        merged: Any = OmegaConf.to_container(OmegaConf.merge(stated, given), resolve=True)
        return merged

    def _parameter(self, name: str, default: Any) -> Any:
        value = OmegaConf.select(OmegaConf.create(self["parameters"]), name)
        return default if value is None else value
