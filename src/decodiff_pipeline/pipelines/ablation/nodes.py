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
from decodiff_pipeline.experiments.ablation_config import AblationConfig
from decodiff_pipeline.experiments.ablation_store import AblationStore
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
    """Train and evaluate each variant for each seed; finished runs in the store are not repeated.

    Returns:
        The metrics of each variant, see `experiments.ablation_report.summarise`.
    """
    from decodiff_pipeline.experiments.ablation import AblationData, run_ablation
    from decodiff_pipeline.experiments.ablation_report import summarise

    images = images.of(manifest)
    data = AblationData(manifest, images, cache, geometry, autoencoder, latents, evaluation)
    return summarise(run_ablation(data, store, config, training, scoring), config.seeds)


def report_ablation(ablation: dict[str, Any]) -> tuple[str, Any]:
    """Render the results as a table in Markdown, which is also logged, and a matplotlib figure."""
    from decodiff_pipeline.experiments.ablation_report import draw, render_table

    table = render_table(ablation)
    logger.info("%s", table)
    return table, draw(ablation)
