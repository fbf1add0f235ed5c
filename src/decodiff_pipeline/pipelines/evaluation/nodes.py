"""Nodes of the evaluation pipeline."""

from __future__ import annotations

from typing import Any

import pandas as pd

from decodiff_pipeline.compute.config import ComputeConfig
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
    compute: ComputeConfig,
) -> PredictionStore:
    """Score the calibration and test images; returns the store."""
    from decodiff_pipeline.evaluation import scoring

    model, images = _prepared(model, manifest, images)
    scoring.score_images(model, manifest, images, store, config, compute)
    return store


def score_baseline(
    model: Any,
    manifest: pd.DataFrame,
    images: ImageFolder,
    store: PredictionStore,
    config: EvaluationConfig,
    compute: ComputeConfig,
) -> PredictionStore:
    """Score the test images by the reconstruction error of the model's autoencoder.

    Calibration images are not scored, because a baseline has no threshold.
    """
    from decodiff_pipeline.evaluation import scoring
    from decodiff_pipeline.evaluation.autoencoder_baseline import AutoencoderBaseline

    model, images = _prepared(model, manifest, images)
    test = manifest[manifest["split"] == "test"]
    scoring.score_images(AutoencoderBaseline.of(model), test, images, store, config, compute)
    return store


def review_training_images(
    model: Any,
    manifest: pd.DataFrame,
    images: ImageFolder,
    predictions: PredictionStore,
    config: EvaluationConfig,
    compute: ComputeConfig,
) -> dict[str, Any]:
    """List the good train images with the highest scores: category → images."""
    from decodiff_pipeline.evaluation import training_review

    model, images = _prepared(model, manifest, images)
    return training_review.review_training_images(
        model, manifest, images, predictions, config, compute
    )


def make_monitoring_reference(
    model: Any,
    manifest: pd.DataFrame,
    images: ImageFolder,
    predictions: PredictionStore,
    config: ReferenceConfig,
) -> dict[str, Any]:
    """Measure the features of good val and calibration images with which monitoring compares."""
    from decodiff_pipeline.monitoring.reference import make_reference

    model, images = _prepared(model, manifest, images)
    return make_reference(model, manifest, images, predictions, config)


def measure_synthetic_localisation(
    model: Any, manifest: pd.DataFrame, images: ImageFolder, config: EvaluationConfig
) -> dict[str, Any]:
    """Pixel metrics on synthetic defects, for categories without masks: category → metrics."""
    from decodiff_pipeline.evaluation import synthetic_localisation

    model, images = _prepared(model, manifest, images)
    return synthetic_localisation.measure_synthetic_localisation(model, manifest, images, config)


def fit_thresholds(predictions: PredictionStore, config: EvaluationConfig) -> dict[str, Any]:
    """Fit image and pixel thresholds of each category to the scores of its calibration images."""
    from decodiff_pipeline.evaluation import thresholds

    return thresholds.fit_thresholds(predictions, config.false_positive_rate, config.costs)


def measure_baselines(
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    predictions: PredictionStore,
    config: EvaluationConfig,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Metrics of the PCA and autoencoder baselines, and a table of their scores per test image."""
    from decodiff_pipeline.evaluation import baselines

    return baselines.measure_baselines(manifest, images.of(manifest), geometry, predictions, config)


def compute_metrics(
    predictions: PredictionStore,
    manifest: pd.DataFrame,
    images: ImageFolder,
    thresholds: dict[str, Any],
    baseline: dict[str, Any],
    baseline_scores: pd.DataFrame,
    synthetic: dict[str, Any],
    replicates: dict[int, dict[str, Any]],
    config: EvaluationConfig,
    training: TrainingConfig,
    scoring: ScoringConfig,
) -> tuple[dict[str, Any], dict[str, Any], pd.DataFrame]:
    """Metrics of all categories with confidence intervals, their curves, and a row per image.

    Args:
        replicates: Metrics of seed replicates: seed → ``metrics.json``.
        training: Gives the seed of this run.
        scoring: Not used here. The tracking hook logs the parameters that nodes take as inputs,
            and seed replicates are found by these.
    """
    from decodiff_pipeline.evaluation.assessment import assess
    from decodiff_pipeline.metrics.summary import spread

    assessment = assess(
        predictions,
        manifest,
        images.of(manifest),
        thresholds,
        config,
        baseline=baseline,
        synthetic=synthetic,
        pca_scores=dict(zip(baseline_scores["path"], baseline_scores["pca_score"], strict=True)),
    )
    metrics = assessment.metrics
    seeds = spread(replicates, metrics, training.seed)
    return metrics | ({"seeds": seeds} if seeds else {}), assessment.curves, assessment.record


def compare_models(
    record: pd.DataFrame, metrics: dict[str, Any], references: Any, config: EvaluationConfig
) -> dict[str, Any]:
    """Compare the metrics with those of the champion or of a Git revision.

    Args:
        references: A `datasets.earlier_evaluation.EarlierEvaluations`.
        config: Gives ``compare_with``.
    """
    from decodiff_pipeline.evaluation.comparison import compare

    return compare(record, metrics, references.load(config.compare_with))


def draw_report(
    metrics: dict[str, Any],
    thresholds: dict[str, Any],
    curves: dict[str, Any],
    comparison: dict[str, Any],
    training_review: dict[str, Any],
    predictions: PredictionStore,
    manifest: pd.DataFrame,
    images: ImageFolder,
    provenance: dict[str, Any],
    config: EvaluationConfig,
) -> tuple[dict[str, Any], str]:
    """Draw the figures of each category, and render the results as an HTML page.

    Raises:
        DataError: The protocol or resolution of the metrics differs from the parameters.
    """
    from decodiff_pipeline.evaluation.protocols import labelled, require_same_protocol
    from decodiff_pipeline.reporting import figures, report

    images = images.of(manifest)
    require_same_protocol(metrics, "metrics", config.protocol, config.resolution)
    index = labelled(predictions.index(), images, predictions.geometry(), config.protocol)
    report_input = report.ReportInput(
        metrics,
        thresholds,
        index,
        predictions,
        images,
        curves=curves,
        identity=_identity(predictions, manifest, provenance),
        training_review=training_review,
        comparison=comparison,
        gallery_images=config.gallery_images,
    )
    drawn = figures.draw_figures(index, predictions, images, thresholds, config)
    return drawn, report.render_report(report_input)


def summarise(
    metrics: dict[str, Any],
    comparison: dict[str, Any],
    predictions: PredictionStore,
    manifest: pd.DataFrame,
    provenance: dict[str, Any],
) -> tuple[str, pd.DataFrame]:
    """The metrics as a Markdown comment for a pull request, and as a table."""
    from decodiff_pipeline.reporting.markdown import render_summary
    from decodiff_pipeline.reporting.tables import metrics_table

    identity = _identity(predictions, manifest, provenance)
    return render_summary(metrics, comparison, identity), metrics_table(metrics)


def summarise_run(metrics: dict[str, Any], provenance: dict[str, Any]) -> dict[str, Any]:
    """MLflow run id, names of ``--params`` overrides and key metrics.

    No DVC stage may depend on this output, because the run id differs between equal runs.
    """
    from decodiff_pipeline.reporting.tables import key_figures

    names = provenance.get("parameter_overrides")
    overrides = {"parameter_overrides": names} if names else {}
    return {"mlflow_run_id": provenance["mlflow_run_id"], **overrides, **key_figures(metrics)}


def tabulate(
    record: pd.DataFrame, curves: dict[str, Any], thresholds: dict[str, Any]
) -> tuple[Any, ...]:
    """The scores table of the test images, and the rows of each plot of `dvc plots`."""
    from decodiff_pipeline.reporting import tables

    return (
        tables.scores_table(record, thresholds),
        *(tables.curve_rows(curves, name) for name in tables.CURVES),
        tables.score_rows(record),
        tables.confusion_rows(record, thresholds),
    )


def _prepared(model: Any, manifest: pd.DataFrame, images: ImageFolder) -> tuple[Any, ImageFolder]:
    """The model on the configured device, and the images as it reads them."""
    from decodiff_pipeline.deco.device import resolve_device

    return model.to(resolve_device()), images.of(manifest, model.bit_depths)


def _identity(
    predictions: PredictionStore, manifest: pd.DataFrame, provenance: dict[str, Any]
) -> dict[str, Any]:
    from decodiff_pipeline.data.provenance import data_digest

    return {
        "model": predictions.about().get("network_sha256"),
        "data": data_digest(manifest),
        **provenance,
    }
