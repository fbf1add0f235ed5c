"""Parameters of the recommendation, and the folders that they select."""

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

RESERVED = frozenset({"base", "local"})  # Kedro's own environments


class RecommendConfig(BaseModel):
    """The images for which an environment is written (`conf/base/parameters_recommend.yml`).

    Attributes:
        source: Any folder of images.
        dataset: Folder in ``data/01_raw``, instead of ``source``.
        name: Name of the environment, ``conf/<name>``; ``None`` for the folder's name.
        overwrite: Whether to replace the files of an existing environment.
        minutes: Intended training time on this machine in minutes.
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
            raise ValueError("give either recommend.source or recommend.dataset, not both")
        return self


@dataclass(frozen=True)
class BaseParameters:
    """The current parameters.

    ``least`` is the smallest number of good train images a category, ``false_positive_rate`` the
    target of the thresholds.
    """

    data: DataConfig
    geometry: PreprocessConfig
    autoencoder: AutoencoderConfig
    latents: LatentCacheConfig
    training: TrainingConfig
    scoring: ScoringConfig
    visibility: VisibilityConfig
    least: int
    false_positive_rate: float
    compute: ComputeConfig


@dataclass(frozen=True)
class Target:
    """The folder of the images and the environment to write."""

    root: Path  # folder of the images
    dataset: str  # name of the data set: its folder in ``data/01_raw``
    name: str  # of the environment
    folder: Path  # ``conf/<name>``
    acquired: bool  # whether the images are already in ``data/01_raw``


def target(config: RecommendConfig, raw: Path, conf: Path) -> Target:
    """Check the folder of the images and whether the environment may be written.

    Args:
        raw: ``data/01_raw``.
        conf: Folder of the environments.

    Raises:
        ConfigurationError: No folder is given, the name is invalid, or the environment exists.
        DataError: The folder does not exist.
    """
    if config.source is None and config.dataset is None:
        raise ConfigurationError(
            "recommend has no images: give --params recommend.source=path/to/folder, or "
            "recommend.dataset=name for data/01_raw/name"
        )
    root = raw / config.dataset if config.dataset is not None else Path(str(config.source))
    key = "recommend.source" if config.dataset is None else "recommend.dataset"
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"{key} {root} {problem}: give the folder of the images")
    root = root.resolve()
    acquired = root.parent == raw.resolve()
    name = config.name if config.name is not None else root.name
    if not NAME.fullmatch(name) or name in RESERVED:
        raise ConfigurationError(
            f"{name!r} cannot be the name of an environment: give recommend.name with letters, "
            "digits, '.', '_' and '-', other than base and local"
        )
    folder = conf / name
    if folder.exists() and not config.overwrite:
        raise ConfigurationError(
            f"conf/{name} exists already: give recommend.overwrite=true to replace its "
            "parameters, or another recommend.name"
        )
    return Target(root, root.name if acquired else name, name, folder, acquired)
