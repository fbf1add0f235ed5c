"""The inference pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from decodiff_pipeline.pipelines.inference.nodes import export_results, infer, report_unreadable


def create_pipeline(**_: object) -> Pipeline:
    """Images, model and thresholds in; results, maps and overlays out."""
    model = ["decodiff_model_folder", "decodiff_onnx_folder", "thresholds"]
    parameters = ["params:inference", "params:data", "params:compute"]
    return Pipeline(
        [
            Node(
                infer,
                ["inference_source", *model, "inference_store", *parameters, "threshold_overrides"],
                "inference_results",
                name="score_new_images",
            ),
            Node(
                export_results,
                "inference_results",
                ["inference_table", "inference_detections"],
                name="export_results",
            ),
            # A node of its own, so that the results are saved before it stops the run.
            Node(report_unreadable, "inference_results", None, name="report_unreadable"),
        ]
    )
