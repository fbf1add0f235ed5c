"""Nodes of the recommend pipeline."""

from __future__ import annotations

import logging
from pathlib import Path

from decodiff_pipeline.compute.config import ComputeConfig
from decodiff_pipeline.data.caching import LatentCacheConfig
from decodiff_pipeline.data.manifest import DataConfig
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.pipelines.data_validation.config import ValidationConfig
from decodiff_pipeline.recommend.config import BaseParameters, RecommendConfig, target
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.scoring import ScoringConfig
from decodiff_pipeline.visibility.config import VisibilityConfig

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
    evaluation: EvaluationConfig,
    compute: ComputeConfig,
) -> None:
    """Write ``conf/<name>`` for a folder of images, each value with its reason."""
    environment = target(config, raw, conf)
    from decodiff_pipeline.recommend import run

    base = BaseParameters(
        data, geometry, autoencoder, latents, training, scoring, visibility,
        validation.min_train_images, evaluation.false_positive_rate, compute,
    )  # fmt: skip
    for command in run.recommend(environment, base, config.minutes):
        logger.info("next: %s", command)
