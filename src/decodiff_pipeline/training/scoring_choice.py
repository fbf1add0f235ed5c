"""The weight of the two discrepancies and the image score, chosen by synthetic defects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from decodiff_pipeline.deco.discrepancy import anomaly_maps, image_scores, scored_map, smoothed
from decodiff_pipeline.metrics.exact import image_metrics, pixel_metrics

if TYPE_CHECKING:
    from decodiff_pipeline.deco.config import DiscrepancyConfig

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
SOURCES: tuple[Literal["map", "latent", "pixel"], ...] = ("map", "latent", "pixel")
TOP_SHARES = (0.0, 0.001, 0.01, 0.05)
# The given setting stays unless another is better by this much: less is chance.
MARGIN = 0.005
AT_ONCE = 32


@dataclass(frozen=True)
class Pairs:
    """Discrepancies of good images and of the same images with a synthetic defect.

    Attributes:
        category_ids: int64 (N,).
        pixel: Of the good images, then of the defective ones, float32 (2N, H, W).
        latent: The same, float32 (2N, h, w).
        masks: Of the defects, bool (N, H, W).
    """

    category_ids: np.ndarray
    pixel: np.ndarray
    latent: np.ndarray
    masks: np.ndarray

    def smoothed(self, config: DiscrepancyConfig) -> Pairs:
        """The same with the maps that :func:`decodiff_pipeline.deco.discrepancy.smoothed` gives."""
        parts = [
            smoothed(
                self.pixel[start : start + AT_ONCE], self.latent[start : start + AT_ONCE], config
            )
            for start in range(0, len(self.pixel), AT_ONCE)
        ]
        pixel, latent = (np.concatenate(maps) for maps in zip(*parts, strict=True))
        return replace(self, pixel=pixel, latent=latent)


class _Maps:
    """Fused maps of some images, made when they are asked for."""

    def __init__(self, pairs: Pairs, rows: np.ndarray, config: DiscrepancyConfig) -> None:
        self.pairs, self.rows, self.config = pairs, rows, config

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> np.ndarray:
        row = self.rows[index]
        return anomaly_maps(self.pairs.pixel[row], self.pairs.latent[row], self.config)


def choose_weight(config: DiscrepancyConfig, maps: Pairs) -> tuple[DiscrepancyConfig, float]:
    """Choose the weight of the pixel discrepancy by the localisation of synthetic defects.

    Args:
        config: How maps are made; its weight stays unless another one is clearly better.
        maps: As :meth:`Pairs.smoothed` returns them.

    Returns:
        The configuration with the weight, and its pixel AP, mean over the categories.
    """
    if config.fusion not in {"geometric", "arithmetic"}:
        return config, pixel_ap(config, maps)
    candidates = [replace(config, pixel_weight=weight) for weight in WEIGHTS]
    return _best(config, {each: pixel_ap(each, maps) for each in [config, *candidates]})


def choose_image_score(config: DiscrepancyConfig, maps: Pairs) -> tuple[DiscrepancyConfig, float]:
    """Choose what the image score is taken from by telling synthetic defects from good images.

    Args:
        config: How maps are made; its image score stays unless another one is clearly better.
        maps: As :meth:`Pairs.smoothed` returns them.

    Returns:
        The configuration with the image score, and its image AUROC, mean over the categories.
    """
    candidates = [
        replace(config, score_from=source, top_share=share)
        for source, share in product(SOURCES, TOP_SHARES)
    ]
    return _best(config, {each: image_auroc(each, maps) for each in [config, *candidates]})


def pixel_ap(config: DiscrepancyConfig, maps: Pairs) -> float:
    """Average precision over the pixels of good and defective images, mean over the categories.

    Args:
        config: How the two maps are fused.
        maps: As :meth:`Pairs.smoothed` returns them.
    """
    values: list[Any] = []
    for category in np.unique(maps.category_ids):
        own = np.flatnonzero(maps.category_ids == category)
        rows = np.concatenate([own, own + len(maps.category_ids)])
        masks = [*[None] * len(own), *maps.masks[own]]
        values.append(pixel_metrics(_Maps(maps, rows, config), masks)["pixel_ap"])
    return float(np.mean(values))


def image_auroc(config: DiscrepancyConfig, maps: Pairs) -> float:
    """AUROC of defective against good images, mean over the categories.

    Args:
        config: How images are scored.
        maps: As :meth:`Pairs.smoothed` returns them.
    """
    scores = np.concatenate(
        [_scores(config, maps, start) for start in range(0, len(maps.pixel), AT_ONCE)]
    )
    count = len(maps.category_ids)
    values: list[Any] = []
    for category in np.unique(maps.category_ids):
        own = np.tile(maps.category_ids == category, 2)
        values.append(image_metrics(scores[own], np.arange(2 * count)[own] >= count)["image_auroc"])
    return float(np.mean(values))


def _scores(config: DiscrepancyConfig, maps: Pairs, start: int) -> np.ndarray:
    pixel, latent = (each[start : start + AT_ONCE] for each in (maps.pixel, maps.latent))
    fused = anomaly_maps(pixel, latent, config)
    return image_scores(scored_map(fused, pixel, latent, config), config)


def _best(
    given: DiscrepancyConfig, found: dict[DiscrepancyConfig, float]
) -> tuple[DiscrepancyConfig, float]:
    best = max(found, key=lambda config: found[config])
    chosen = best if found[best] > found[given] + MARGIN else given
    return chosen, found[chosen]
