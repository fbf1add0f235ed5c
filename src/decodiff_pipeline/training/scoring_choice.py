"""The weight of the two discrepancies and the image scores, chosen by synthetic defects."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from decodiff_pipeline.deco.config import ImageScoreConfig
from decodiff_pipeline.deco.discrepancy import (
    anomaly_maps,
    image_scores,
    levelled,
    scored_map,
    smoothed,
)
from decodiff_pipeline.metrics.exact import pixel_metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decodiff_pipeline.deco.config import DiscrepancyConfig

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
SOURCES: tuple[Literal["map", "latent", "pixel"], ...] = ("map", "latent", "pixel")
TOP_SHARES = (0.0, 0.001, 0.01, 0.05, 0.1)
# Power and reach of the level that values are compared with.
LEVELS = ((0.0, 0.0), *product((0.5, 0.75), (0.0, 1 / 8, 3 / 16)))
CANDIDATES = tuple(
    ImageScoreConfig(source, share, *level)
    for source, share, level in product(SOURCES, TOP_SHARES, LEVELS)
)
# The given weight stays unless another is better by this much.
MARGIN = 0.005
# Weight, in images, of the mean over the categories beside a category's own AUROC.
PRIOR_IMAGES = 10
AT_ONCE = 32


@dataclass(frozen=True)
class Drawn:
    """Discrepancies of good images and of some of the same with a synthetic defect."""

    category_ids: np.ndarray  # of the good images, int64 (N,)
    sources: np.ndarray  # which good image each defect was drawn into, int64 (M,)
    pixel: np.ndarray  # of the good images, then of the defective ones, float32 (N + M, H, W)
    latent: np.ndarray  # the same, float32 (N + M, h, w)
    masks: np.ndarray  # of the defects, bool (M, H, W)
    inside: np.ndarray | None = None  # the pixels that count, bool (N + M, H, W); ``None`` for all

    def smoothed(self, config: DiscrepancyConfig) -> Drawn:
        """The same with the maps that :func:`decodiff_pipeline.deco.discrepancy.smoothed` gives."""
        parts = [
            smoothed(
                torch.from_numpy(self.pixel[start : start + AT_ONCE]),
                torch.from_numpy(self.latent[start : start + AT_ONCE]),
                config,
                self.counted(start),
            )
            for start in range(0, len(self.pixel), AT_ONCE)
        ]
        pixel, latent = (torch.cat(maps).numpy() for maps in zip(*parts, strict=True))
        return replace(self, pixel=pixel, latent=latent)

    def counted(self, start: int) -> np.ndarray | None:
        """``inside`` of the next `AT_ONCE` images."""
        return None if self.inside is None else self.inside[start : start + AT_ONCE]

    def of(self, category: int) -> tuple[np.ndarray, np.ndarray]:
        """Which of the good images and which of the defects are of a category."""
        good = np.flatnonzero(self.category_ids == category)
        return good, np.flatnonzero(np.isin(self.sources, good))


class _Maps:
    """Fused maps of some images, made when they are asked for."""

    def __init__(self, drawn: Drawn, rows: np.ndarray, config: DiscrepancyConfig) -> None:
        self.drawn, self.rows, self.config = drawn, rows, config

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> np.ndarray:
        row = self.rows[index]
        return anomaly_maps(self.drawn.pixel[row], self.drawn.latent[row], self.config)


def choose_weight(config: DiscrepancyConfig, maps: Drawn) -> tuple[DiscrepancyConfig, float]:
    """Choose the weight of the pixel discrepancy by the localisation of synthetic defects.

    Args:
        config: How maps are made; its weight stays unless another one is clearly better.
        maps: As :meth:`Drawn.smoothed` returns them.

    Returns:
        The configuration with the weight, and its pixel AP, mean over the categories.
    """
    given = pixel_ap(config, maps)
    if config.fusion not in {"geometric", "arithmetic"}:
        return config, given
    candidates = [replace(config, pixel_weight=weight) for weight in WEIGHTS]
    found = [pixel_ap(each, maps) for each in candidates]
    best = int(np.argmax(found))
    return (candidates[best], found[best]) if found[best] > given + MARGIN else (config, given)


def pixel_ap(config: DiscrepancyConfig, maps: Drawn) -> float:
    """Average precision over the pixels of good and defective images, mean over the categories.

    Args:
        config: How the two maps are fused.
        maps: As :meth:`Drawn.smoothed` returns them.
    """
    values: list[Any] = []
    for category in np.unique(maps.category_ids):
        good, defects = maps.of(category)
        rows = np.concatenate([good, defects + len(maps.category_ids)])
        masks = [*[None] * len(good), *maps.masks[defects]]
        values.append(pixel_metrics(_Maps(maps, rows, config), masks)["pixel_ap"])
    return float(np.mean(values))


def choose_image_scores(
    config: DiscrepancyConfig, maps: Drawn, categories: Sequence[str]
) -> tuple[DiscrepancyConfig, float]:
    """Choose how images are scored by telling synthetic defects from good images.

    A category has the score with the largest AUROC there and over all categories, weighted by n
    and 10 where it has n good images: few images leave it close to what suits all categories.
    A score replaces another only where it is better by more than the standard error of the AUROC.
    Synthetic defects do not tell closer candidates apart (docs/scoring.md).

    Args:
        config: How maps are made; its image score stays unless another one is clearly better.
        maps: As :meth:`Drawn.smoothed` returns them.
        categories: Their names, in the order of their ids.

    Returns:
        The configuration with the image scores, and its image AUROC, mean over the categories.
    """
    candidates = [config.image_score(""), *CANDIDATES]
    scores = score_all(config, maps, candidates)
    present = np.unique(maps.category_ids)
    own = np.array([auroc(scores, maps, category) for category in present])
    mean = own.mean(axis=0)
    of_mean = _standard_error(mean, len(maps.sources))
    common = _clearly_best(mean, 0, of_mean)
    chosen, reached = {}, []
    for category, found in zip(present, own, strict=True):
        share = 1 / (1 + PRIOR_IMAGES / np.sum(maps.category_ids == category))
        error = np.hypot(
            share * _standard_error(found, len(maps.of(category)[1])), (1 - share) * of_mean
        )
        best = _clearly_best(share * found + (1 - share) * mean, common, error)
        reached.append(found[best])
        if best != common:
            chosen[categories[category]] = candidates[best]
    fields = asdict(candidates[common])
    return replace(config, **fields, image_scores=chosen), float(np.mean(reached))


def _standard_error(aurocs: np.ndarray, defects: int) -> np.ndarray:
    """That of a share of ``defects``: of each AUROC, which is a mean over as many defects."""
    return np.sqrt(aurocs * (1 - aurocs) / max(1, defects))


def _clearly_best(values: np.ndarray, given: int, errors: np.ndarray) -> int:
    best = int(values.argmax())
    return best if values[best] > values[given] + errors[given] else given


def image_auroc(config: DiscrepancyConfig, maps: Drawn, categories: Sequence[str]) -> float:
    """AUROC of defective against other good images, mean over the categories.

    Args:
        config: How images are scored.
        maps: As :meth:`Drawn.smoothed` returns them.
        categories: Their names, in the order of their ids.
    """
    values = []
    for category in np.unique(maps.category_ids):
        scores = score_all(config, maps, [config.image_score(categories[category])])
        values.append(auroc(scores, maps, category)[0])
    return float(np.mean(values))


def score_all(
    config: DiscrepancyConfig, maps: Drawn, candidates: Sequence[ImageScoreConfig]
) -> np.ndarray:
    """Scores of all images, float32 (candidates, N + M)."""
    parts = []
    for start in range(0, len(maps.pixel), AT_ONCE):
        pixel, latent = (each[start : start + AT_ONCE] for each in (maps.pixel, maps.latent))
        inside = maps.counted(start)
        fused = anomaly_maps(pixel, latent, config)
        found, levels = [], {}
        for each in candidates:
            plain = replace(each, level_power=0.0, level_sigma=0.0)
            level = replace(each, top_share=0.0)
            if level not in levels:
                scored = scored_map(fused, pixel, latent, each)
                levels[level] = levelled(scored, each, scored[0].size, inside)
            found.append(image_scores(levels[level], plain, inside=inside))
        parts.append(found)
    return np.concatenate(parts, axis=1)


def auroc(scores: np.ndarray, maps: Drawn, category: int) -> np.ndarray:
    """Of defective against other good images, one of each candidate, float64 (candidates,).

    An image with a defect is not compared with itself without one, unless it is alone: that
    comparison would not see how much images differ anyway.

    Args:
        scores: As :func:`score_all` returns them.
    """
    good, defects = maps.of(category)
    compared = (maps.sources[defects][:, None] != good) | (len(good) == 1)
    of_good, of_defects = scores[:, good], scores[:, len(maps.category_ids) + defects]
    won = (np.sign(of_defects[:, :, None] - of_good[:, None, :]) + 1) / 2
    return won[:, compared].mean(axis=1, dtype=float)
