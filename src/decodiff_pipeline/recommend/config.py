"""Parameters of the recommendation, and what they mean on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from decodiff_pipeline.data.acquire import NAME
from decodiff_pipeline.errors import ConfigurationError, DataError
from decodiff_pipeline.text import Text

if TYPE_CHECKING:
    from decodiff_pipeline.compute.config import ComputeConfig
    from decodiff_pipeline.data.caching import LatentCacheConfig
    from decodiff_pipeline.data.manifest import DataConfig
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.deco.weights import AutoencoderConfig
    from decodiff_pipeline.training.config import TrainingConfig
    from decodiff_pipeline.training.scoring import ScoringConfig
    from decodiff_pipeline.visibility.config import VisibilityConfig

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
class BaseParameters:
    """The parameters as they are; ``least`` is the good train images that a category needs."""

    data: DataConfig
    geometry: PreprocessConfig
    autoencoder: AutoencoderConfig
    latents: LatentCacheConfig
    training: TrainingConfig
    scoring: ScoringConfig
    visibility: VisibilityConfig
    least: int
    compute: ComputeConfig


@dataclass(frozen=True)
class Target:
    """Where images are read and an environment is written."""

    root: Path  # folder of the images
    dataset: str  # what the data set is called: its folder in ``data/01_raw``
    name: str  # of the environment
    folder: Path  # ``conf/<name>``
    acquired: bool  # whether the images lie in ``data/01_raw`` already


def target(config: RecommendConfig, raw: Path, conf: Path) -> Target:
    """Checks where the images are and whether the environment may be written.

    Raises:
        ConfigurationError: No folder is named, the name will not do, or the environment exists.
        DataError: The folder does not exist.
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
