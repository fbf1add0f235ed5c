"""The settings of a saved pipeline as typed objects: its configuration and its thresholds."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.deco.config import DiscrepancyConfig, PreprocessConfig
from decodiff_pipeline.deco.regions import read_regions
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import torch

    from decodiff_pipeline.deco.config import ImageScoreConfig
    from decodiff_pipeline.deco.regions import Region


class PipelineSettings:
    """Mixin of `DeCoDiffPipeline`; reads ``config`` and the categories of ``unet``."""

    config: Any
    unet: Any

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories that the network was trained on."""
        return self.unet.categories

    @property
    def preprocessing(self) -> PreprocessConfig:
        """Geometry of the input."""
        return PreprocessConfig(**self.config.preprocess)

    @property
    def discrepancy(self) -> DiscrepancyConfig:
        """Parameters of maps and scores."""
        return DiscrepancyConfig(**self.config.discrepancy)

    @property
    def bit_depths(self) -> dict[str, int]:
        """Category → bits that its 16-bit images use; categories that use 16 are missing."""
        return dict(self.config.get("bit_depths") or {})

    @property
    def regions(self) -> dict[str, Region]:
        """Category → its region; categories without one are missing."""
        return read_regions(self.config)

    @property
    def image_size(self) -> int:
        """Side in pixels of the square input."""
        return self.preprocessing.image_size

    def _regions(self, category_ids: torch.Tensor) -> list[Region | None]:
        """The region of each image; ``None`` for the whole image."""
        regions = self.regions
        return [regions.get(self.categories[number]) for number in category_ids.tolist()]

    def _image_scores(self, category_ids: torch.Tensor) -> list[ImageScoreConfig]:
        config, names = self.discrepancy, self.categories
        return [config.image_score(names[number]) for number in category_ids.tolist()]

    def _category_ids(self, category: str | Sequence[str], count: int) -> torch.Tensor:
        """The category ids of ``count`` images, int64 (count,)."""
        names = [category] * count if isinstance(category, str) else list(category)
        if not count or len(names) != count:
            raise ModelError(
                f"{count} images with {len(names)} categories; give one category for each image"
            )
        return self.unet.category_ids(names)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Context without diffusers' warnings about configuration entries that it wrote itself."""
    log = logging.getLogger("diffusers.configuration_utils")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def thresholds_beside(folder: Path) -> dict[str, float | None]:
    """Category → image threshold, from ``thresholds.json`` next to a model's folder; else empty."""
    path = folder.absolute().with_name("thresholds.json")
    if not path.is_file():
        return {}
    categories = json.loads(path.read_text(encoding="utf-8"))["categories"]
    return {name: limits["threshold"] for name, limits in categories.items()}
