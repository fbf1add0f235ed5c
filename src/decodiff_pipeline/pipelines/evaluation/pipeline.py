"""The evaluation pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node, pipeline

from decodiff_pipeline.pipelines.evaluation.nodes import (
    compute_metrics,
    draw_figures,
    fit_pca_baseline,
    fit_thresholds,
    render_report,
    score_images,
)


def create_pipeline(**_: object) -> Pipeline:
    """Model and images in; predictions, thresholds, metrics, figures and a report out."""
    return pipeline(
        [
            node(
                score_images,
                inputs=[
                    "decodiff_model",
                    "validated_manifest",
                    "raw_images",
                    "prediction_store",
                    "params:evaluation",
                ],
                outputs="predictions",
                name="score_images",
            ),
            node(
                fit_thresholds,
                inputs=["predictions", "params:evaluation"],
                outputs="thresholds",
                name="fit_thresholds",
            ),
            node(
                fit_pca_baseline,
                inputs=[
                    "validated_manifest",
                    "raw_images",
                    "params:preprocessing",
                    "params:evaluation",
                ],
                outputs="baseline_metrics",
                name="fit_pca_baseline",
            ),
            node(
                compute_metrics,
                inputs=[
                    "predictions",
                    "raw_images",
                    "thresholds",
                    "baseline_metrics",
                    "params:evaluation",
                ],
                outputs="metrics",
                name="compute_metrics",
            ),
            node(
                draw_figures,
                inputs=["predictions", "raw_images", "thresholds", "params:evaluation"],
                outputs="figures",
                name="draw_figures",
            ),
            node(
                render_report,
                inputs=["metrics", "thresholds", "predictions", "raw_images", "params:evaluation"],
                outputs="report",
                name="render_report",
            ),
        ]
    )
