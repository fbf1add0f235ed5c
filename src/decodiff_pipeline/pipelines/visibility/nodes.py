"""Node of the visibility pipeline."""

from __future__ import annotations

from typing import Any

import pandas as pd

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.scoring import ScoringConfig
from decodiff_pipeline.visibility.config import VisibilityConfig


def check_visibility(
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    autoencoder: AutoencoderConfig,
    training: TrainingConfig,
    scoring: ScoringConfig,
    config: VisibilityConfig,
) -> tuple[dict[str, Any], str]:
    """Measure which defects remain visible after resizing and the autoencoder.

    Returns:
        The report as a JSON value, and as an HTML page.
    """
    from decodiff_pipeline.deco.autoencoder import load_autoencoder
    from decodiff_pipeline.visibility.report import report_visibility

    return report_visibility(
        manifest,
        images.of(manifest),
        geometry,
        load_autoencoder(autoencoder),
        training,
        scoring,
        config,
        name=autoencoder.source,
        page=config.html,
    )
