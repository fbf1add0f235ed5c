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

    model, name = load_autoencoder(autoencoder), autoencoder.source
    return report_on(
        model, name, manifest, images, geometry, training, scoring, config, page=config.html
    )


def report_on(
    model: Any,
    name: str,
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    training: TrainingConfig,
    scoring: ScoringConfig,
    config: VisibilityConfig,
    *,
    page: str,
) -> tuple[dict[str, Any], str]:
    """Measures a loaded autoencoder; see :func:`check_visibility`.

    Args:
        model: The autoencoder, in eval mode.
        name: Of the autoencoder, for the report.
        page: Where the warnings point to.
    """
    from decodiff_pipeline.evaluation.visibility import report

    facts, found = report.check_visibility(
        manifest,
        images.of(manifest),
        geometry=geometry,
        autoencoder=model,
        name=name,
        config=config,
        preset=training.preset,
        reverse_steps=scoring.num_inference_steps,
    )
    report.tell(facts, page)
    return facts, report.render(facts, found, config)
