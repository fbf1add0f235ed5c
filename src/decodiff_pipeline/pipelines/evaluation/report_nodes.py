"""Nodes of the evaluation pipeline that compare and show what was measured."""

from __future__ import annotations

from typing import Any

import pandas as pd

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.evaluation.predictions import PredictionStore
from decodiff_pipeline.evaluation.reference import EarlierEvaluations


def compare_models(
    record: pd.DataFrame,
    metrics: dict[str, Any],
    references: EarlierEvaluations,
    config: EvaluationConfig,
) -> dict[str, Any]:
    """Whether the model is better than the champion, or than that of a revision.

    See `decodiff_pipeline.evaluation.comparison.compare`.
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


def name_run(provenance: dict[str, Any]) -> dict[str, str | None]:
    """The MLflow run that measured, in a file of its own: no stage may depend on a random id."""
    return {"mlflow_run_id": provenance["mlflow_run_id"]}


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


def _identity(
    predictions: PredictionStore, manifest: pd.DataFrame, provenance: dict[str, Any]
) -> dict[str, Any]:
    from decodiff_pipeline.data.provenance import data_digest

    return {
        "model": predictions.about().get("network_sha256"),
        "data": data_digest(manifest),
        **provenance,
    }
