"""The evaluation pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node, pipeline

from decodiff_pipeline.pipelines.evaluation.nodes import (
    compute_metrics,
    draw_report,
    fit_pca_baseline,
    fit_thresholds,
    score_images,
)

PARAMETERS = "params:evaluation"


def create_pipeline(**_: object) -> Pipeline:
    """Model and images in; predictions, thresholds, metrics, figures and a report out."""
    scored = ["decodiff_model", "validated_manifest", "raw_images", "prediction_store"]
    floor = ["validated_manifest", "raw_images", "params:preprocessing"]
    judged = ["predictions", "raw_images", "thresholds", "baseline_metrics"]
    shown = ["metrics", "thresholds", "predictions", "raw_images"]
    return pipeline(
        [
            node(score_images, [*scored, PARAMETERS], "predictions", name="score_images"),
            node(fit_thresholds, ["predictions", PARAMETERS], "thresholds", name="fit_thresholds"),
            node(
                fit_pca_baseline,
                [*floor, PARAMETERS],
                "baseline_metrics",
                name="fit_pca_baseline",
            ),
            node(compute_metrics, [*judged, PARAMETERS], "metrics", name="compute_metrics"),
            node(draw_report, [*shown, PARAMETERS], ["figures", "report"], name="draw_report"),
        ]
    )
