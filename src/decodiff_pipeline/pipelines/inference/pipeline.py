"""The inference pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node, pipeline

from decodiff_pipeline.pipelines.inference.nodes import infer, report_unreadable


def create_pipeline(**_: object) -> Pipeline:
    """Images, model and thresholds in; results, maps and overlays out."""
    inputs = ["inference_source", "decodiff_model_folder", "thresholds", "inference_store"]
    return pipeline(
        [
            node(infer, [*inputs, "params:inference"], "inference_results", name="infer"),
            # Separate from `infer`, so that the results are on disk when it stops the run.
            node(report_unreadable, "inference_results", None, name="report_unreadable"),
        ]
    )
