"""Nodes of the ablation pipeline."""

from __future__ import annotations

import logging
from typing import Any

import pandas as pd

from decodiff_pipeline.data.caching import LatentCacheConfig
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.latent_cache import LatentCache
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.training.ablation_config import AblationConfig
from decodiff_pipeline.training.ablation_store import AblationStore
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.scoring import ScoringConfig

logger = logging.getLogger(__name__)


def compare_variants(
    manifest: pd.DataFrame,
    images: ImageFolder,
    cache: LatentCache,
    store: AblationStore,
    geometry: PreprocessConfig,
    autoencoder: AutoencoderConfig,
    latents: LatentCacheConfig,
    training: TrainingConfig,
    scoring: ScoringConfig,
    evaluation: EvaluationConfig,
    config: AblationConfig,
) -> dict[str, Any]:
    """Train and score every variant that is not finished yet.

    Args:
        manifest: The validated manifest.
        images: The raw images.
        cache: Latents of its train and val images.
        store: What earlier runs have finished.
        geometry: How images are fitted into squares.
        autoencoder: Which autoencoder made the latents.
        latents: How the cache was filled.
        training: Base configuration of the training.
        scoring: Base configuration of the scoring.
        evaluation: How the variants are judged.
        config: Which variants.

    Returns:
        See `decodiff_pipeline.training.ablation_report.summarise`.
    """
    from decodiff_pipeline.training.ablation import AblationData, run_ablation
    from decodiff_pipeline.training.ablation_report import summarise

    seen = images.of(manifest)
    data = AblationData(manifest, seen, cache, geometry, autoencoder, latents, evaluation)
    return summarise(run_ablation(data, store, config, training, scoring), config.seeds)


def report_ablation(ablation: dict[str, Any]) -> tuple[str, Any]:
    """The figures as one table, which the log shows too, and one plot.

    Args:
        ablation: From `compare_variants`.

    Returns:
        Markdown, and a matplotlib figure.
    """
    from decodiff_pipeline.training.ablation_report import draw, render_table

    table = render_table(ablation)
    logger.info("%s", table)
    return table, draw(ablation)
