"""The numbers that are compared, of each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from decodiff_pipeline.metrics.image_quality import QUALITY, image_quality
from decodiff_pipeline.monitoring.latent_space import LatentSpace, stretched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

SCORE = "score"
LABELS = {
    SCORE: "anomaly score",
    "latent_distance": "distance in latent space",
    "latent_residual": "distance from latent space's axes",
    **QUALITY,
}


def label(feature: str) -> str:
    """What a person calls a feature."""
    return LABELS.get(feature) or feature.replace("latent_", "latent axis ")


@dataclass(frozen=True)
class Photograph:
    """What is kept of an image once it is read.

    Attributes:
        quality: As `image_quality` returns it.
        square: As `stretched` returns it.
    """

    quality: dict[str, float]
    square: np.ndarray

    @classmethod
    def of(cls, image: Image.Image, side: int) -> Photograph:
        """Measure an image and stretch it to a square of some side."""
        return cls(image_quality(image), stretched(image, side))


def features(
    space: LatentSpace,
    scores: Sequence[float],
    descriptors: np.ndarray,
    quality: Sequence[dict[str, float]],
) -> pd.DataFrame:
    """The numbers of images of one category.

    Args:
        space: The category's.
        scores: Of the images; NaN where one is not to be had.
        descriptors: As `describe` returns them.
        quality: As `image_quality` returns it.

    Returns:
        A row for each image; columns ``score``, those of `LatentSpace.place` and of
        `image_quality`.
    """
    table = pd.concat([pd.DataFrame(space.place(descriptors)), pd.DataFrame(quality)], axis=1)
    table.insert(0, SCORE, np.asarray(scores, float))
    return table
