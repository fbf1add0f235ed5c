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
    """Score the calibration and test images, on the GPU where there is one.

    Args:
        model: A `decodiff_pipeline.deco.pipeline.DeCoDiffPipeline`.
        manifest: The validated manifest.
        images: The raw images.
        store: Where the predictions go, as a whole.
        config: Batch size and number of reverse steps.

    Returns:
        The store, now filled.
    """
    from decodiff_pipeline.evaluation import scoring

    seen = images.of(manifest, model.bit_depths)
    scoring.score_images(_on_device(model), manifest, seen, store, config)
    return store


def fit_thresholds(predictions: PredictionStore, config: EvaluationConfig) -> dict[str, Any]:
    """Image and pixel thresholds from the calibration images.

    Args:
        predictions: The scored images.
        config: The false-positive rate.

    Returns:
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
    """Score the test images by the reconstruction error of the model's autoencoder alone.

    Args:
        model: A `decodiff_pipeline.deco.pipeline.DeCoDiffPipeline`.
        manifest: The validated manifest.
        images: The raw images.
        store: Where these predictions go, as a whole.
        config: Batch size.

    Returns:
        The store, now filled.
    """
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

    Args:
        manifest: The validated manifest.
        images: The raw images.
        geometry: How images are fitted into squares, for the masks.
        predictions: From `score_baseline`.
        config: Protocol and limit of AUPRO.

    Returns:
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

    Args:
        model: A `decodiff_pipeline.deco.pipeline.DeCoDiffPipeline`.
        manifest: The validated manifest.
        images: The raw images.
        predictions: The scored images, for the scores of the calibration ones.
        config: How many are listed and scored.

    Returns:
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

    Args:
        model: A `decodiff_pipeline.deco.pipeline.DeCoDiffPipeline`.
        manifest: The validated manifest.
        images: The raw images.
        config: How many images are given a defect.

    Returns:
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
    synthetic: dict[str, Any],
    siblings: dict[int, dict[str, Any]],
    config: EvaluationConfig,
    training: TrainingConfig,
    scoring: ScoringConfig,
) -> tuple[dict[str, Any], dict[str, Any], pd.DataFrame]:
    """All metrics of all categories with their intervals, curves, and a row for each image.

    Args:
        predictions: The scored images.
        manifest: The validated manifest.
        images: The raw images, for the masks.
        thresholds: From `fit_thresholds`.
        baseline: From `measure_baselines`.
        synthetic: From `measure_synthetic_localisation`.
        siblings: Metrics of runs that differ by their seed, by seed.
        config: Protocol, resolution, limit of AUPRO, and what to resample.
        training: The model's, for its seed.
        scoring: The model's; taken so that both are among the run's parameters in MLflow, by
            which later runs find their siblings.

    Returns:
        See `decodiff_pipeline.evaluation.assessment.Assessment`; the metrics have ``seeds`` where
        there are other seeds.
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

    Args:
        model: A `decodiff_pipeline.deco.pipeline.DeCoDiffPipeline`.
        manifest: The validated manifest.
        images: The raw images.
        predictions: The scored images.
        config: How much is kept.

    Returns:
        See `decodiff_pipeline.monitoring.reference.make_reference`.
    """
    from decodiff_pipeline.monitoring.reference import make_reference

    seen = images.of(manifest, model.bit_depths)
    return make_reference(_on_device(model), manifest, seen, predictions, config)


def _on_device(model: Any) -> Any:
    from decodiff_pipeline.deco.device import resolve_device

    return model.to(resolve_device())
