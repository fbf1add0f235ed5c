"""Nodes of the evaluation pipeline that compare and show what was measured."""

from __future__ import annotations

from typing import Any

import pandas as pd

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.evaluation.predictions import PredictionStore
from decodiff_pipeline.evaluation.reference import References


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

    Args:
        metrics: From `compute_metrics`.
        thresholds: From `fit_thresholds`.
        curves: From `compute_metrics`.
        comparison: From `compare_models`.
        training_review: From `review_training_images`.
        predictions: The scored images.
        manifest: The validated manifest, for the data's digest.
        images: The raw images.
        provenance: Commit, DVC revision and MLflow run.
        config: Protocol, and how many images the figures and the page show.

    Returns:
        A file name and a matplotlib figure for each category; the page.

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
    """The results as a comment for a pull request, and as a table.

    Args:
        metrics: From `compute_metrics`.
        comparison: From `compare_models`.
        predictions: The scored images, for the model's digest.
        manifest: The validated manifest, for the data's.
        provenance: Commit, DVC revision and MLflow run.

    Returns:
        Markdown; a row for each category.
    """
    from decodiff_pipeline.reporting.markdown import render_summary
    from decodiff_pipeline.reporting.tables import metrics_table

    identity = _identity(predictions, manifest, provenance)
    return render_summary(metrics, comparison, identity), metrics_table(metrics)


def name_run(provenance: dict[str, Any]) -> dict[str, str | None]:
    """The MLflow run that measured, in a file of its own: no stage may depend on a random id.

    Args:
        provenance: Of this run.

    Returns:
        ``mlflow_run_id``, which is ``None`` where nothing is tracked.
    """
    return {"mlflow_run_id": provenance["mlflow_run_id"]}


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
    from decodiff_pipeline.reporting import tables

    return (
        tables.scores_table(record, thresholds),
        *(tables.curve_rows(curves, name) for name in tables.CURVES),
        tables.score_rows(record),
        tables.confusion_rows(record, thresholds),
    )


def _identity(
    predictions: PredictionStore, manifest: pd.DataFrame, provenance: dict[str, Any]
) -> dict[str, Any]:
    from decodiff_pipeline.data.provenance import data_digest

    return {
        "model": predictions.about().get("network_sha256"),
        "data": data_digest(manifest),
        **provenance,
    }
