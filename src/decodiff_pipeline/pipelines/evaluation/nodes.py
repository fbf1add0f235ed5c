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
    """Score the calibration and test images."""
    from decodiff_pipeline.evaluation import scoring

    seen = images.of(manifest, model.bit_depths)
    scoring.score_images(_on_device(model), manifest, seen, store, config, compute)
    return store


def score_baseline(
    model: Any,
    manifest: pd.DataFrame,
    images: ImageFolder,
    store: PredictionStore,
    config: EvaluationConfig,
    compute: ComputeConfig,
) -> PredictionStore:
    """Score the test images by the reconstruction error of the model's autoencoder alone."""
    from decodiff_pipeline.evaluation import scoring
    from decodiff_pipeline.evaluation.autoencoder_baseline import AutoencoderBaseline

    baseline = AutoencoderBaseline.of(_on_device(model))
    seen = images.of(manifest, model.bit_depths)
    # Of the test images alone: a baseline has no threshold that calibration would serve.
    test = manifest[manifest["split"] == "test"]
    scoring.score_images(baseline, test, seen, store, config, compute)
    return store


def review_training_images(
    model: Any,
    manifest: pd.DataFrame,
    images: ImageFolder,
    predictions: PredictionStore,
    config: EvaluationConfig,
    compute: ComputeConfig,
) -> dict[str, Any]:
    """See `evaluation.training_review.review_training_images`."""
    from decodiff_pipeline.evaluation import training_review

    seen = images.of(manifest, model.bit_depths)
    return training_review.review_training_images(
        _on_device(model), manifest, seen, predictions, config, compute
    )


def make_monitoring_reference(
    model: Any,
    manifest: pd.DataFrame,
    images: ImageFolder,
    predictions: PredictionStore,
    config: ReferenceConfig,
) -> dict[str, Any]:
    """See `monitoring.reference.make_reference`."""
    from decodiff_pipeline.monitoring.reference import make_reference

    seen = images.of(manifest, model.bit_depths)
    return make_reference(_on_device(model), manifest, seen, predictions, config)


def measure_synthetic_localisation(
    model: Any, manifest: pd.DataFrame, images: ImageFolder, config: EvaluationConfig
) -> dict[str, Any]:
    """See `evaluation.synthetic_localisation.measure_synthetic_localisation`."""
    from decodiff_pipeline.evaluation import synthetic_localisation

    return synthetic_localisation.measure_synthetic_localisation(
        _on_device(model), manifest, images.of(manifest, model.bit_depths), config
    )


def fit_thresholds(predictions: PredictionStore, config: EvaluationConfig) -> dict[str, Any]:
    """See `evaluation.thresholds.fit_thresholds`."""
    from decodiff_pipeline.evaluation import thresholds

    return thresholds.fit_thresholds(predictions, config.false_positive_rate, config.costs)


def measure_baselines(
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    predictions: PredictionStore,
    config: EvaluationConfig,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """See `evaluation.baselines.measure_baselines`."""
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
    """All metrics of all categories with their intervals, curves, and a row for each image."""
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
    seeds = spread(replicates, found.metrics, training.seed)
    return found.metrics | ({"seeds": seeds} if seeds else {}), found.curves, found.record


def compare_models(
    record: pd.DataFrame, metrics: dict[str, Any], references: Any, config: EvaluationConfig
) -> dict[str, Any]:
    """Whether the model is better than the champion, or than that of a revision.

    Args:
        references: A `datasets.earlier_evaluation.EarlierEvaluations`.
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
    """Pictures of telling images, and everything that was found as one HTML page.

    Raises:
        DataError: The metrics were measured by another protocol or at another resolution.
    """
    from decodiff_pipeline.evaluation.protocols import labelled, require_same_protocol
    from decodiff_pipeline.reporting import figures, report

    images = images.of(manifest)
    require_same_protocol(metrics, "metrics", config.protocol, config.resolution)
    index = labelled(predictions.index(), images, predictions.geometry(), config.protocol)
    given = report.ReportInput(
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
    return drawn, report.render_report(given)


def summarise(
    metrics: dict[str, Any],
    comparison: dict[str, Any],
    predictions: PredictionStore,
    manifest: pd.DataFrame,
    provenance: dict[str, Any],
) -> tuple[str, pd.DataFrame]:
    """The results as a comment for a pull request, and as a table."""
    from decodiff_pipeline.reporting.markdown import render_summary
    from decodiff_pipeline.reporting.tables import metrics_table

    identity = _identity(predictions, manifest, provenance)
    return render_summary(metrics, comparison, identity), metrics_table(metrics)


def summarise_run(metrics: dict[str, Any], provenance: dict[str, Any]) -> dict[str, Any]:
    """The key figures and the MLflow run, in a file that no stage depends on: its id is random.

    What ``--params`` gave is named beside it, since no file has it.
    """
    from decodiff_pipeline.reporting.tables import key_figures

    given = provenance.get("parameter_overrides")
    named = {"parameter_overrides": given} if given else {}
    return {"mlflow_run_id": provenance["mlflow_run_id"], **named, **key_figures(metrics)}


def tabulate(
    record: pd.DataFrame, curves: dict[str, Any], thresholds: dict[str, Any]
) -> tuple[Any, ...]:
    """The test images as a table, and the rows that `dvc plots` draws."""
    from decodiff_pipeline.reporting import tables

    return (
        tables.scores_table(record, thresholds),
        *(tables.curve_rows(curves, name) for name in tables.CURVES),
        tables.score_rows(record),
        tables.confusion_rows(record, thresholds),
    )


def _on_device(model: Any) -> Any:
    from decodiff_pipeline.deco.device import resolve_device

    return model.to(resolve_device())


def _identity(
    predictions: PredictionStore, manifest: pd.DataFrame, provenance: dict[str, Any]
) -> dict[str, Any]:
    from decodiff_pipeline.data.provenance import data_digest

    return {
        "model": predictions.about().get("network_sha256"),
        "data": data_digest(manifest),
        **provenance,
    }
