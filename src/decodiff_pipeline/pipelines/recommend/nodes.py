"""Nodes of the recommend pipeline."""

from __future__ import annotations

import logging
from pathlib import Path

from decodiff_pipeline.data.caching import LatentCacheConfig
from decodiff_pipeline.data.manifest import DataConfig
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.evaluation.visibility.config import VisibilityConfig
from decodiff_pipeline.pipelines.data_validation.config import ValidationConfig
from decodiff_pipeline.recommend.config import RecommendConfig, target
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.scoring import ScoringConfig

logger = logging.getLogger(__name__)


def recommend(
    raw: Path,
    conf: Path,
    config: RecommendConfig,
    data: DataConfig,
    geometry: PreprocessConfig,
    autoencoder: AutoencoderConfig,
    latents: LatentCacheConfig,
    training: TrainingConfig,
    scoring: ScoringConfig,
    visibility: VisibilityConfig,
    validation: ValidationConfig,
) -> None:
    """Writes ``conf/<name>`` for a folder of images, each value with its reason.

    Args:
        raw: Where raw data sets lie.
        conf: Where environments lie.
        config: Which images, and the name.
        data: How images lie and are split.
        geometry: How they are fitted into squares.
        autoencoder: Which autoencoder.
        latents: Views and augmentation.
        training: Size of the network and length.
        scoring: Of the anomaly maps.
        visibility: What is measured of the autoencoder.
        validation: How many good images a category needs.

    Raises:
        ConfigurationError: The name will not do, or the environment is there.
        DataError: There are no images, or they lie in no layout that is known.
    """
    where = target(config, raw, conf)
    from decodiff_pipeline.recommend import run

    base = run.Base(
        data, geometry, autoencoder, latents, training, scoring, visibility,
        validation.min_train_images,
    )  # fmt: skip
    for command in run.recommend(where, base, config.minutes):
        logger.info("next: %s", command)
