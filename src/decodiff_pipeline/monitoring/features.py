"""The numbers that are compared, of each image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.metrics.image_quality import QUALITY, image_quality
from decodiff_pipeline.monitoring.latent_space import LatentSpace, describe

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


def measure(
    model: Any,
    images: Sequence[Image.Image],
    category: str,
    space: LatentSpace,
    *,
    steps: int | None = None,
    scores: Sequence[float] | None = None,
) -> pd.DataFrame:
    """Measure a batch of images.

    Args:
        model: A `decodiff_pipeline.deco.pipeline.DeCoDiffPipeline`.
        images: As `data.images.read_image` returns them.
        category: Of all of them.
        space: The category's.
        steps: Reverse steps; ``None`` for those the model was saved with.
        scores: Known already; NaN where one is not to be had.

    Returns:
        A row for each image; columns ``score``, those of `LatentSpace.place` and of
        `image_quality`.

    Raises:
        ModelError: A score or latent is no number.
    """
    if scores is None:
        answer = model(images, category, num_inference_steps=steps, batch_size=len(images))
        scores = answer.scores
        if not np.isfinite(answer.scores).all():
            raise ModelError(
                f"the model gives NaN or infinity for an image of {category!r}; its weights are "
                "damaged or the training diverged: train again"
            )
    placed = pd.DataFrame(space.place(describe(model, images)))
    quality = pd.DataFrame([image_quality(image) for image in images])
    table = pd.concat([placed, quality], axis=1)
    table.insert(0, SCORE, np.asarray(scores, float))
    if not np.isfinite(table.drop(columns=SCORE).to_numpy()).all():
        raise ModelError(
            f"the autoencoder gives NaN or infinity for an image of {category!r}; its weights are "
            "damaged: train again"
        )
    return table
