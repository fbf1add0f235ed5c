"""Selects the weight of the two discrepancies and the image scores on synthetic defects."""

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
# `level_power` and `level_sigma` of the candidates.
LEVELS = ((0.0, 0.0), *product((0.5, 0.75), (0.0, 1 / 8, 3 / 16)))
CANDIDATES = tuple(
    ImageScoreConfig(source, share, *level)
    for source, share, level in product(SOURCES, TOP_SHARES, LEVELS)
)
# Mean of pixel AP and AUPRO by which another weight must be better to replace the given one.
MARGIN = 0.005
# Weight of the mean AUROC over the categories, in images, beside a category's own AUROC.
PRIOR_IMAGES = 10
BATCH = 32


@dataclass(frozen=True)
class Drawn:
    """Discrepancies of N good images, and of M images with a synthetic defect.

    Attributes:
        category_ids: Of the good images, int64 (N,).
        sources: Index of the good image that each defect was drawn into, int64 (M,).
        pixel: Pixel discrepancies, good images first, float32 (N + M, H, W).
        latent: Latent discrepancies, in the same order, float32 (N + M, h, w).
        masks: Masks of the defects, bool (M, H, W).
        inside: Pixels inside of the regions, bool (N + M, H, W); ``None`` for all.
    """

    category_ids: np.ndarray
    sources: np.ndarray
    pixel: np.ndarray
    latent: np.ndarray
    masks: np.ndarray
    inside: np.ndarray | None = None

    def smoothed(self, config: DiscrepancyConfig) -> Drawn:
        """A copy with smoothed maps; see :func:`decodiff_pipeline.deco.discrepancy.smoothed`."""
        parts = [
            smoothed(
                torch.from_numpy(self.pixel[start : start + BATCH]),
                torch.from_numpy(self.latent[start : start + BATCH]),
                config,
                self.inside_batch(start),
            )
            for start in range(0, len(self.pixel), BATCH)
        ]
        pixel, latent = (torch.cat(maps).numpy() for maps in zip(*parts, strict=True))
        return replace(self, pixel=pixel, latent=latent)

    def inside_batch(self, start: int) -> np.ndarray | None:
        """``inside`` of the batch that starts at an image."""
        return None if self.inside is None else self.inside[start : start + BATCH]

    def of(self, category: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices of a category's good images, and of its defects."""
        good = np.flatnonzero(self.category_ids == category)
        return good, np.flatnonzero(np.isin(self.sources, good))


class _Maps:
    """Fused maps of some images, computed on access."""

    def __init__(self, drawn: Drawn, rows: np.ndarray, config: DiscrepancyConfig) -> None:
        self.drawn, self.rows, self.config = drawn, rows, config

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> np.ndarray:
        row = self.rows[index]
        return anomaly_maps(self.drawn.pixel[row], self.drawn.latent[row], self.config)


def choose_weight(config: DiscrepancyConfig, maps: Drawn) -> tuple[DiscrepancyConfig, float]:
    """Select the weight of the pixel discrepancy by the maps of synthetic defects.

    The criterion is the mean of pixel AP and AUPRO. The masks of synthetic defects are exact to the
    pixel, those of real ones are not, so pixel AP alone favours the pixel discrepancy too much.

    Args:
        config: Its weight is replaced only by one that is clearly better (`MARGIN`).
        maps: From :meth:`Drawn.smoothed`, here and below.

    Returns:
        The configuration with the selected weight, and its pixel AP, mean over the categories.
    """
    given = localisation(config, maps)
    if config.fusion not in {"geometric", "arithmetic"}:
        return config, given[0]
    candidates = [replace(config, pixel_weight=weight) for weight in WEIGHTS]
    values = [localisation(candidate, maps) for candidate in candidates]
    best = int(np.argmax(np.mean(values, axis=1)))
    if np.mean(values[best]) > np.mean(given) + MARGIN:
        return candidates[best], values[best][0]
    return config, given[0]


def localisation(config: DiscrepancyConfig, maps: Drawn) -> tuple[float, float]:
    """Pixel AP and AUPRO over good and defective images, each a mean over the categories, 0…1."""
    values: list[Any] = []
    for category in np.unique(maps.category_ids):
        good, defects = maps.of(category)
        rows = np.concatenate([good, defects + len(maps.category_ids)])
        masks = [*[None] * len(good), *maps.masks[defects]]
        found = pixel_metrics(_Maps(maps, rows, config), masks)
        values.append((found["pixel_ap"], found["pixel_aupro"]))
    precision, overlap = np.mean(values, axis=0)
    return float(precision), float(overlap)


def choose_image_scores(
    config: DiscrepancyConfig, maps: Drawn, categories: Sequence[str]
) -> tuple[DiscrepancyConfig, float]:
    """Select each category's image score by the image AUROC on synthetic defects.

    The criterion is the weighted mean of a category's own AUROC, with weight n for n good images,
    and of the mean AUROC over all categories, with weight 10. A score replaces another only if it
    is better by more than the standard error of the AUROC (docs/scoring.md).

    If the reconstruction is compared with the input too, only scores of the latent discrepancy are
    candidates. An autoencoder does not reproduce the sharp edges of synthetic defects, so the other
    scores are better on these than on real defects.

    Args:
        config: Its image score is replaced only by one that is clearly better.
        categories: Names, in the order of their ids.

    Returns:
        The configuration with the image scores, and its image AUROC, mean over the categories.
    """
    encoded = config.pixel_compared_with == "encoded"
    usable = [each for each in CANDIDATES if encoded or each.score_from == "latent"]
    candidates = [config.image_score(""), *usable]
    scores = score_all(config, maps, candidates)
    present = np.unique(maps.category_ids)
    aurocs = np.array([auroc(scores, maps, category) for category in present])
    mean = aurocs.mean(axis=0)
    mean_error = _standard_error(mean, len(maps.sources))
    common = _clearly_best(mean, 0, mean_error)
    selected, reached = {}, []
    for category, values in zip(present, aurocs, strict=True):
        share = 1 / (1 + PRIOR_IMAGES / np.sum(maps.category_ids == category))
        error = np.hypot(
            share * _standard_error(values, len(maps.of(category)[1])), (1 - share) * mean_error
        )
        best = _clearly_best(share * values + (1 - share) * mean, common, error)
        reached.append(values[best])
        if best != common:
            selected[categories[category]] = candidates[best]
    fields = asdict(candidates[common])
    return replace(config, **fields, image_scores=selected), float(np.mean(reached))


def _standard_error(aurocs: np.ndarray, defects: int) -> np.ndarray:
    """Binomial standard error of AUROCs, each a mean over ``defects`` images."""
    return np.sqrt(aurocs * (1 - aurocs) / max(1, defects))


def _clearly_best(values: np.ndarray, given: int, errors: np.ndarray) -> int:
    best = int(values.argmax())
    return best if values[best] > values[given] + errors[given] else given


def image_auroc(config: DiscrepancyConfig, maps: Drawn, categories: Sequence[str]) -> float:
    """AUROC of defective against other good images, mean over the categories."""
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
    for start in range(0, len(maps.pixel), BATCH):
        pixel, latent = (array[start : start + BATCH] for array in (maps.pixel, maps.latent))
        inside = maps.inside_batch(start)
        fused = anomaly_maps(pixel, latent, config)
        scores, levels = [], {}
        for candidate in candidates:
            plain = replace(candidate, level_power=0.0, level_sigma=0.0)
            level = replace(candidate, top_share=0.0)
            if level not in levels:
                scored = scored_map(fused, pixel, latent, candidate)
                levels[level] = levelled(scored, candidate, scored[0].size, inside)
            scores.append(image_scores(levels[level], plain, inside=inside))
        parts.append(scores)
    return np.concatenate(parts, axis=1)


def auroc(scores: np.ndarray, maps: Drawn, category: int) -> np.ndarray:
    """AUROC of defective against other good images, by candidate, float64 (candidates,).

    An image with a defect is not compared with the same image without it, unless the category has
    only one image. That comparison would leave out the variation between images.

    Args:
        scores: As :func:`score_all` returns them.
    """
    good, defects = maps.of(category)
    compared = (maps.sources[defects][:, None] != good) | (len(good) == 1)
    good_scores, defect_scores = scores[:, good], scores[:, len(maps.category_ids) + defects]
    ranked = (np.sign(defect_scores[:, :, None] - good_scores[:, None, :]) + 1) / 2
    return ranked[:, compared].mean(axis=1, dtype=float)
