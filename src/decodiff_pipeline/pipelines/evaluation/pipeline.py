"""The evaluation pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node, pipeline

from decodiff_pipeline.pipelines.evaluation.nodes import (
    compare_models,
    compute_metrics,
    draw_report,
    fit_thresholds,
    measure_baselines,
    measure_synthetic_localisation,
    review_training_images,
    score_baseline,
    score_images,
    summarise,
    tabulate,
)

PARAMETERS = "params:evaluation"
PLOTS = ("image_roc", "image_pr", "pixel_roc", "pixel_pr", "pro", "scores", "confusion")


def create_pipeline(**_: object) -> Pipeline:
    """Model and images in; predictions, thresholds, metrics, figures and a report out."""
    source = ["decodiff_model", "validated_manifest", "raw_images"]
    floor = ["validated_manifest", "raw_images", "params:preprocessing", "baseline_predictions"]
    judged = ["predictions", "raw_images", "thresholds", "baseline_metrics", "sibling_runs"]
    trained = ["params:training", "params:scoring"]
    compared = ["evaluation_record", "metrics", "reference_evaluations"]
    summarised = ["metrics", "comparison", "predictions", "validated_manifest", "provenance"]
    tables = ["scores_table", *(f"plot_{name}" for name in PLOTS)]
    shown = ["metrics", "thresholds", "predictions", "raw_images"]
    return pipeline(
        [
            node(
                score_images,
                [*source, "prediction_store", PARAMETERS],
                "predictions",
                name="score_images",
            ),
            node(fit_thresholds, ["predictions", PARAMETERS], "thresholds", name="fit_thresholds"),
            node(
                score_baseline,
                [*source, "baseline_store", PARAMETERS],
                "baseline_predictions",
                name="score_baseline",
            ),
            node(
                measure_baselines,
                [*floor, PARAMETERS],
                ["baseline_metrics", "baseline_scores"],
                name="measure_baselines",
            ),
            node(
                review_training_images,
                [*source, "predictions", PARAMETERS],
                "training_review",
                name="review_training_images",
            ),
            node(
                measure_synthetic_localisation,
                [*source, PARAMETERS],
                "synthetic_metrics",
                name="measure_synthetic_localisation",
            ),
            node(
                compute_metrics,
                [*judged, PARAMETERS, *trained],
                "metrics",
                name="compute_metrics",
            ),
            node(draw_report, [*shown, PARAMETERS], ["figures", "report"], name="draw_report"),
            node(compare_models, [*compared, PARAMETERS], "comparison", name="compare_models"),
            node(summarise, summarised, ["evaluation_summary", "metrics_table"], name="summarise"),
            node(
                tabulate,
                ["evaluation_record", "curves", "thresholds"],
                tables,
                name="tabulate",
            ),
        ]
    )
