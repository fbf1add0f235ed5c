"""Nodes of the visibility pipeline."""

from __future__ import annotations

from typing import Any

import pandas as pd

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.evaluation.visibility.config import VisibilityConfig
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.scoring import ScoringConfig


def check_visibility(
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    autoencoder: AutoencoderConfig,
    training: TrainingConfig,
    scoring: ScoringConfig,
    config: VisibilityConfig,
) -> tuple[dict[str, Any], str]:
    """Measures what the autoencoder keeps of good val images, and says what cannot be seen.

    Args:
        manifest: The validated manifest.
        images: The raw images.
        geometry: How images are fitted into squares.
        autoencoder: Which autoencoder.
        training: Size of the network, for the time that an image takes.
        scoring: Its reverse steps, for the same.
        config: What is measured, and the limits.

    Returns:
        The report as plain data, and as one HTML page.
    """
    from decodiff_pipeline.deco.autoencoder import load_autoencoder
    from decodiff_pipeline.evaluation.visibility import report

    facts, found = report.check_visibility(
        manifest,
        images.of(manifest),
        geometry=geometry,
        autoencoder=load_autoencoder(autoencoder),
        name=autoencoder.source,
        config=config,
        preset=training.preset,
        reverse_steps=scoring.num_inference_steps,
    )
    report.tell(facts, config.html)
    return facts, report.render(facts, found, config)
