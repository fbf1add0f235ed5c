"""Puts the maps and reconstructions of squares together to those of their images."""

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
    """What the model says of some images.

    Maps and reconstructions are arrays where all have the same size, as they have where every
    image fills one square, and lists of arrays else: the map of an image that was padded has no
    padding, and that of a tiled one is put together from its tiles. `full_size_maps` has the maps
    in the pixels of their images.

    Attributes:
        anomaly_maps: float32 (N, h, w), or (h, w) each, within 0…1; higher is more anomalous.
        scores: float32 (N,) within 0…1, one per image.
        reconstructions: uint8 (N, h, w, 3), or (h, w, 3) each, the images with their deviations
            corrected.
        sizes: Width and height of each image in pixels.
        geometry: How images were fitted into squares.
        thresholds: Of each image's category; ``None`` where the model has none.
        regions: What of each image counts; ``None`` for all of it, and empty for all of all.
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
        """``"defective"``, ``"good"`` or ``None`` for each image, as in `decide`."""
        return [decide(*pair) for pair in zip(self.scores.tolist(), self.thresholds, strict=True)]

    @property
    def full_size_maps(self) -> list[np.ndarray]:
        """float32 (H, W) each, in the image's own pixels; 0 where nothing was seen or counts."""
        regions = self.regions or [None] * len(self.sizes)
        return [
            full_size_map(found, size, self.geometry, region)
            for found, size, region in zip(self.anomaly_maps, self.sizes, regions, strict=True)
        ]


def decide(score: float, threshold: float | None) -> str | None:
    """``"defective"`` from the threshold on, else ``"good"``; ``None`` without a threshold."""
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
    """Stitch the squares of each image, and score the stitched image.

    The score is taken from the stitched map, not from the best tile: it stays the largest value
    (or the mean of the largest) of the map that is shown, of one square and of many.

    Args:
        squares: For each square its map (S, S), what the score is taken from, and its
            reconstruction (S, S, 3), those of an image one after the other; read as needed.
        sizes: Width and height of each image in pixels.
        scores: How each image is scored.
        thresholds: Of each image.
        regions: What of each image counts, in squares that are 0 elsewhere; empty for all of all.
    """
    remaining, images = iter(squares), []
    for size, config, region in zip(sizes, scores, regions or [None] * len(sizes), strict=True):
        own = list(islice(remaining, square_count(size, geometry)))
        whole, scored, reconstruction = (
            stitch(parts, size, geometry) for parts in zip(*own, strict=True)
        )
        inside = None if region is None else region.in_map(size, geometry)[None]
        score = image_scores(scored[None], config, geometry.image_size**2, inside)
        images.append((whole, score[0], reconstruction))
    maps, found, reconstructions = zip(*images, strict=True)
    return DeCoDiffOutput(
        *(_together(maps), np.array(found), _together(reconstructions)),
        *(sizes, geometry, thresholds, regions),
    )


def _together(arrays: Sequence[np.ndarray]) -> np.ndarray | list[np.ndarray]:
    of_one_size = len({array.shape for array in arrays}) == 1
    return np.stack(arrays) if of_one_size else list(arrays)
