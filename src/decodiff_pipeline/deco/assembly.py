"""Assembles the maps and reconstructions of images from those of their squares."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from diffusers.utils import BaseOutput

from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.discrepancy import image_scores
from decodiff_pipeline.deco.geometry import square_count, stitch
from decodiff_pipeline.deco.regions import full_size_map

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from decodiff_pipeline.deco.config import ImageScoreConfig
    from decodiff_pipeline.deco.regions import Region


@dataclass
class DeCoDiffOutput(BaseOutput):
    """The model's output for N images.

    Maps and reconstructions are arrays if all have the same size, else lists of arrays. Padding is
    removed from them, and those of tiled images are stitched. `full_size_maps` has the maps at the
    size of the images.

    Attributes:
        anomaly_maps: float32 (N, h, w), or (h, w) each, within 0…1; higher is more anomalous.
        scores: float32 (N,) within 0…1.
        reconstructions: Corrected images, uint8 (N, h, w, 3), or (h, w, 3) each.
        sizes: Width and height of each image in pixels.
        geometry: The preprocessing.
        thresholds: Threshold of each image's category; ``None`` if the model has none.
        regions: Region of each image; ``None`` for the whole image. May be empty.
    """

    anomaly_maps: np.ndarray | list[np.ndarray]
    scores: np.ndarray
    reconstructions: np.ndarray | list[np.ndarray]
    sizes: Sequence[tuple[int, int]] = ()
    geometry: PreprocessConfig = field(default_factory=PreprocessConfig)
    thresholds: Sequence[float | None] = ()
    regions: Sequence[Region | None] = ()

    @property
    def decisions(self) -> list[str | None]:
        """``"defective"``, ``"good"`` or ``None`` for each image; see `decide`."""
        return [decide(*pair) for pair in zip(self.scores.tolist(), self.thresholds, strict=True)]

    @property
    def full_size_maps(self) -> list[np.ndarray]:
        """Maps at the size of the images, float32 (H, W) each; 0 outside of crop and region."""
        regions = self.regions or [None] * len(self.sizes)
        return [
            full_size_map(found, size, self.geometry, region)
            for found, size, region in zip(self.anomaly_maps, self.sizes, regions, strict=True)
        ]


def decide(score: float, threshold: float | None) -> str | None:
    """``"defective"`` if the score is at least the threshold, else ``"good"``; may be ``None``."""
    if threshold is None:
        return None
    return "defective" if score >= threshold else "good"


def assemble(
    squares: Iterable[Sequence[np.ndarray]],
    sizes: Sequence[tuple[int, int]],
    geometry: PreprocessConfig,
    scores: Sequence[ImageScoreConfig],
    thresholds: Sequence[float | None] = (),
    regions: Sequence[Region | None] = (),
) -> DeCoDiffOutput:
    """Stitch the squares of each image, and compute its score from the stitched map.

    Args:
        squares: For each square its map (S, S), the map that is scored (S, S), and its
            reconstruction (S, S, 3), grouped by image; consumed lazily.
        sizes: Width and height of each image in pixels.
        scores: Image score of each image.
        thresholds: Threshold of each image.
        regions: Region of each image; maps are 0 outside of it. May be empty.
    """
    remaining, images = iter(squares), []
    for size, config, region in zip(sizes, scores, regions or [None] * len(sizes), strict=True):
        image_squares = list(islice(remaining, square_count(size, geometry)))
        anomaly_map, scored, reconstruction = (
            stitch(parts, size, geometry) for parts in zip(*image_squares, strict=True)
        )
        inside = None if region is None else region.in_map(size, geometry)[None]
        score = image_scores(scored[None], config, geometry.image_size**2, inside)
        images.append((anomaly_map, score[0], reconstruction))
    maps, image_score, reconstructions = zip(*images, strict=True)
    return DeCoDiffOutput(
        *(_stacked(maps), np.array(image_score), _stacked(reconstructions)),
        *(sizes, geometry, thresholds, regions),
    )


def _stacked(arrays: Sequence[np.ndarray]) -> np.ndarray | list[np.ndarray]:
    """An array if all have the same shape, else a list."""
    same_shape = len({array.shape for array in arrays}) == 1
    return np.stack(arrays) if same_shape else list(arrays)
