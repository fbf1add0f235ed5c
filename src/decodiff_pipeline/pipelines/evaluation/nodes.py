"""Nodes of the evaluation pipeline."""

from __future__ import annotations

from typing import Any

import pandas as pd

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.evaluation.predictions import PredictionStore
from decodiff_pipeline.evaluation.reference import References
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.scoring import ScoringConfig


def score_images(
    model: Any,
    manifest: pd.DataFrame,
    images: ImageFolder,
    store: PredictionStore,
    config: EvaluationConfig,
) -> PredictionStore:
    """Score the val, calibration and test images, on the GPU where there is one.

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

    scoring.score_images(_on_the_gpu(model), manifest, images, store, config)
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
    from decodiff_pipeline.evaluation.autoencoder_baseline import AutoencoderBaseline
    from decodiff_pipeline.evaluation.baselines import score_test_images

    baseline = AutoencoderBaseline.of(_on_the_gpu(model))
    score_test_images(baseline, manifest, images, store, config)
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
        geometry: Resize and crop, for the masks.
        predictions: From `score_baseline`.
        config: Protocol and limit of AUPRO.

    Returns:
        See `decodiff_pipeline.evaluation.baselines.measure_baselines`.
    """
    from decodiff_pipeline.evaluation import baselines

    return baselines.measure_baselines(manifest, images, geometry, predictions, config)


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
        _on_the_gpu(model), manifest, images, predictions, config
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
        _on_the_gpu(model), manifest, images, config
    )


def compute_metrics(
    predictions: PredictionStore,
    images: ImageFolder,
    thresholds: dict[str, Any],
    baseline: dict[str, Any],
    siblings: dict[int, dict[str, Any]],
    config: EvaluationConfig,
    training: TrainingConfig,
    scoring: ScoringConfig,
) -> dict[str, Any]:
    """All metrics of all categories, their mean, the floor and the spread over seeds beside them.

    Args:
        predictions: The scored images.
        images: The raw images, for the masks.
        thresholds: From `fit_thresholds`.
        baseline: From `measure_baselines`.
        siblings: Metrics of runs that differ by their seed, by seed.
        config: Protocol and limit of AUPRO.
        training: The model's, for its seed.
        scoring: The model's; taken so that both are among the run's parameters in MLflow, by
            which later runs find their siblings.

    Returns:
        See `decodiff_pipeline.evaluation.assessment.assess`; and ``seeds`` where there are others.
    """
    from decodiff_pipeline.evaluation.assessment import assess
    from decodiff_pipeline.evaluation.seeds import spread

    metrics = assess(predictions, images, thresholds, baseline, config)
    seeds = spread(siblings, metrics, training.seed)
    return metrics | ({"seeds": seeds} if seeds else {})


def draw_report(
    metrics: dict[str, Any],
    thresholds: dict[str, Any],
    predictions: PredictionStore,
    images: ImageFolder,
    config: EvaluationConfig,
) -> tuple[dict[str, Any], str]:
    """Pictures of telling images, and everything above as one HTML page.

    Args:
        metrics: From `compute_metrics`.
        thresholds: From `fit_thresholds`.
        predictions: The scored images.
        images: The raw images.
        config: Protocol, and how many images the figures and the page show.

    Returns:
        A file name and a matplotlib figure for each category; the page.

    Raises:
        DataError: The metrics were measured by another protocol.
    """
    from decodiff_pipeline.evaluation import figures, report
    from decodiff_pipeline.evaluation.protocols import labelled, require_same_protocol

    require_same_protocol(metrics, "metrics", config.protocol)
    index = labelled(predictions.index(), images, predictions.geometry(), config.protocol)
    drawn = figures.draw_figures(index, predictions, images, thresholds, config)
    given = report.ReportInput(
        metrics, thresholds, index, predictions, images, gallery_images=config.gallery_images
    )
    return drawn, report.render_report(given)


def compare_models(
    record: pd.DataFrame,
    metrics: dict[str, Any],
    references: References,
    config: EvaluationConfig,
) -> dict[str, Any]:
    """Whether the model is better than the champion, or than that of a revision.

    Args:
        record: A row for each calibration and test image.
        metrics: From `compute_metrics`.
        references: Where earlier evaluations are.
        config: Which of them.

    Returns:
        See `decodiff_pipeline.evaluation.comparison.compare`.

    Raises:
        ConfigurationError: Git knows no such revision.
    """
    from decodiff_pipeline.evaluation.comparison import compare

    return compare(record, metrics, references.load(config.compare_with))


def summarise(
    metrics: dict[str, Any],
    comparison: dict[str, Any],
    predictions: PredictionStore,
    manifest: pd.DataFrame,
    provenance: dict[str, Any],
) -> tuple[str, pd.DataFrame]:
    """The results as a comment for a pull request, and as a table.

    Args:
        metrics: From `compute_metrics`.
        comparison: From `compare_models`.
        predictions: The scored images, for the model's digest.
        manifest: The validated manifest, for the data's.
        provenance: Commit and DVC revision.

    Returns:
        Markdown; a row for each category.
    """
    from decodiff_pipeline.data.provenance import data_digest
    from decodiff_pipeline.evaluation.markdown import render_summary
    from decodiff_pipeline.evaluation.tables import metrics_table

    identity = {
        "model": predictions.about().get("network_sha256"),
        "data": data_digest(manifest),
        **provenance,
    }
    return render_summary(metrics, comparison, identity), metrics_table(metrics)


def tabulate(
    record: pd.DataFrame, curves: dict[str, Any], thresholds: dict[str, Any]
) -> tuple[Any, ...]:
    """The test images as a table, and the rows that `dvc plots` draws.

    Args:
        record: A row for each calibration and test image.
        curves: Of each category.
        thresholds: From `fit_thresholds`.

    Returns:
        The table; rows of the curves, the scores and the decisions.
    """
    from decodiff_pipeline.evaluation import plots
    from decodiff_pipeline.evaluation.tables import scores_table

    return (
        scores_table(record, thresholds),
        *(plots.curve_rows(curves, name) for name in plots.CURVES),
        plots.score_rows(record),
        plots.confusion_rows(record, thresholds),
    )


def _on_the_gpu(model: Any) -> Any:
    import torch

    return model.to("cuda") if torch.cuda.is_available() else model
