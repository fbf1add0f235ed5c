"""Parameters of the recommendation, and what they mean on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from decodiff_pipeline.data.acquire import NAME
from decodiff_pipeline.errors import ConfigurationError, DataError
from decodiff_pipeline.text import Text

KEPT = frozenset({"base", "local"})  # Kedro's own environments


class RecommendConfig(BaseModel):
    """Which images an environment is written for (`conf/base/parameters_recommend.yml`).

    Attributes:
        source: Folder of the images, anywhere.
        dataset: Folder in ``data/01_raw``, in place of ``source``.
        name: Name of the environment, ``conf/<name>``; ``None`` for the folder's name.
        overwrite: Whether files of an environment that is there are replaced.
        minutes: Minutes that training should take on this machine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Text | None = None
    dataset: Text | None = None
    name: Text | None = None
    overwrite: bool = False
    minutes: float = Field(default=20, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.source is not None and self.dataset is not None:
            raise ValueError("give one of recommend.source and recommend.dataset, not both")
        return self


@dataclass(frozen=True)
class Target:
    """Where images are read and an environment is written.

    Attributes:
        root: Folder of the images.
        dataset: What the data set is called: its folder in ``data/01_raw``.
        name: Of the environment.
        folder: ``conf/<name>``.
        acquired: Whether the images lie in ``data/01_raw`` already.
    """

    root: Path
    dataset: str
    name: str
    folder: Path
    acquired: bool


def target(config: RecommendConfig, raw: Path, conf: Path) -> Target:
    """Checks where the images are and whether the environment may be written.

    Args:
        config: The parameters.
        raw: ``data/01_raw``.
        conf: ``conf``.

    Raises:
        ConfigurationError: No folder is named, the name will not do, or the environment is there.
        DataError: The folder is not there.
    """
    if config.source is None and config.dataset is None:
        raise ConfigurationError(
            "recommend names no images: give --params recommend.source=path/to/folder, or "
            "recommend.dataset=name for data/01_raw/name"
        )
    root = raw / config.dataset if config.dataset is not None else Path(str(config.source))
    key = "recommend.source" if config.dataset is None else "recommend.dataset"
    if not root.is_dir():
        kind = "is no folder" if root.exists() else "does not exist"
        raise DataError(f"{key} {root} {kind}: name the folder that the images are in")
    root = root.resolve()
    acquired = root.parent == raw.resolve()
    name = config.name if config.name is not None else root.name
    if not NAME.fullmatch(name) or name in KEPT:
        raise ConfigurationError(
            f"{name!r} cannot be the name of an environment: give recommend.name with letters, "
            "digits, '.', '_' and '-', other than base and local"
        )
    folder = conf / name
    if folder.exists() and not config.overwrite:
        raise ConfigurationError(
            f"conf/{name} is there already: give recommend.overwrite=true to replace its "
            "parameters, or another recommend.name"
        )
    return Target(root, root.name if acquired else name, name, folder, acquired)
