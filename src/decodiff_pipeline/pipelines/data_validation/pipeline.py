"""The data_validation pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from decodiff_pipeline.pipelines.data_validation.nodes import build_manifest, gate, validate


def create_pipeline(**_: object) -> Pipeline:
    """Raw images in; manifest, validation report and validated manifest out."""
    return Pipeline(
        [
            Node(
                build_manifest,
                inputs=["raw_images", "params:data"],
                outputs="manifest",
                name="build_manifest",
            ),
            Node(
                validate,
                inputs=[
                    "manifest",
                    "raw_images",
                    "params:data",
                    "params:preprocessing",
                    "params:validation",
                ],
                outputs=["validation_report", "validation_report_html"],
                name="validate_images",
            ),
            # A node of its own, so that the report is saved before it stops the run.
            Node(
                gate,
                inputs=["manifest", "validation_report"],
                outputs="validated_manifest",
                name="stop_if_invalid",
            ),
        ]
    )
