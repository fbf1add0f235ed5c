"""Nodes of the evaluation pipeline that score and measure."""

from __future__ import annotations

from typing import Any

import pandas as pd

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.evaluation.predictions import PredictionStore
from decodiff_pipeline.monitoring.config import ReferenceConfig
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.scoring import ScoringConfig


def score_images(
    model: Any,
    manifest: pd.DataFrame,
    images: ImageFolder,
    store: PredictionStore,
    config: EvaluationConfig,
) -> PredictionStore:
    """Score the calibration and test images, on the GPU where there is one."""
    from decodiff_pipeline.evaluation import scoring

    seen = images.of(manifest, model.bit_depths)
    scoring.score_images(_on_device(model), manifest, seen, store, config)
    return store


def fit_thresholds(predictions: PredictionStore, config: EvaluationConfig) -> dict[str, Any]:
    """Image and pixel thresholds from the calibration images.

    See `decodiff_pipeline.evaluation.thresholds.fit_thresholds`.
    """
    from decodiff_pipeline.evaluation import thresholds

    return thresholds.fit_thresholds(predictions, config.false_positive_rate)


def score_baseline(
    model: Any,
    manifest: pd.DataFrame,
    images: ImageFolder,
    store: PredictionStore,
    config: EvaluationConfig,
) -> PredictionStore:
    """Score the test images by the reconstruction error of the model's autoencoder alone."""
    from decodiff_pipeline.evaluation.baselines import AutoencoderBaseline, score_test_images

    baseline = AutoencoderBaseline.of(_on_device(model))
    seen = images.of(manifest, model.bit_depths)
    score_test_images(baseline, manifest, seen, store, config)
    return store


def measure_baselines(
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    predictions: PredictionStore,
    config: EvaluationConfig,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """PCA and the autoencoder alone on the same split, masks and metrics as the model.

    See `decodiff_pipeline.evaluation.baselines.measure_baselines`.
    """
    from decodiff_pipeline.evaluation import baselines

    return baselines.measure_baselines(manifest, images.of(manifest), geometry, predictions, config)


def review_training_images(
    model: Any,
    manifest: pd.DataFrame,
    images: ImageFolder,
    predictions: PredictionStore,
    config: EvaluationConfig,
) -> dict[str, Any]:
    """The good training images that the model finds most unusual, for somebody to look at.

    See `decodiff_pipeline.evaluation.training_review.review_training_images`.
    """
    from decodiff_pipeline.evaluation import training_review

    return training_review.review_training_images(
        _on_device(model), manifest, images.of(manifest, model.bit_depths), predictions, config
    )


def measure_synthetic_localisation(
    model: Any, manifest: pd.DataFrame, images: ImageFolder, config: EvaluationConfig
) -> dict[str, Any]:
    """Pixel metrics on synthetic defects, for the categories that have no masks.

    See `synthetic_localisation.measure_synthetic_localisation`.
    """
    from decodiff_pipeline.evaluation import synthetic_localisation

    return synthetic_localisation.measure_synthetic_localisation(
        _on_device(model), manifest, images.of(manifest, model.bit_depths), config
    )


def compute_metrics(
    predictions: PredictionStore,
    manifest: pd.DataFrame,
    images: ImageFolder,
    thresholds: dict[str, Any],
    baseline: dict[str, Any],
    baseline_scores: pd.DataFrame,
    synthetic: dict[str, Any],
    siblings: dict[int, dict[str, Any]],
    config: EvaluationConfig,
    training: TrainingConfig,
    scoring: ScoringConfig,
) -> tuple[dict[str, Any], dict[str, Any], pd.DataFrame]:
    """All metrics of all categories with their intervals, curves, and a row for each image.

    See `decodiff_pipeline.evaluation.assessment.Assessment`.
    """
    from decodiff_pipeline.evaluation.assessment import assess
    from decodiff_pipeline.metrics.summary import spread

    found = assess(
        predictions,
        manifest,
        images.of(manifest),
        thresholds,
        config,
        baseline=baseline,
        synthetic=synthetic,
        pca_scores=dict(zip(baseline_scores["path"], baseline_scores["pca_score"], strict=True)),
    )
    seeds = spread(siblings, found.metrics, training.seed)
    return found.metrics | ({"seeds": seeds} if seeds else {}), found.curves, found.record


def make_monitoring_reference(
    model: Any,
    manifest: pd.DataFrame,
    images: ImageFolder,
    predictions: PredictionStore,
    config: ReferenceConfig,
) -> dict[str, Any]:
    """What good images that training did not see are like, for the monitoring.

    See `decodiff_pipeline.monitoring.reference.make_reference`.
    """
    from decodiff_pipeline.monitoring.reference import make_reference

    seen = images.of(manifest, model.bit_depths)
    return make_reference(_on_device(model), manifest, seen, predictions, config)


def _on_device(model: Any) -> Any:
    from decodiff_pipeline.deco.device import resolve_device

    return model.to(resolve_device())
