"""The data_validation pipeline: list and measure the raw images, check them, stop if need be."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node, pipeline

from decodiff_pipeline.pipelines.data_validation.nodes import build_manifest, gate, validate


def create_pipeline(**kwargs: object) -> Pipeline:
    """Returns raw_images → manifest → validation_report(+ _html) → validated_manifest."""
    return pipeline(
        [
            node(
                build_manifest,
                inputs=["raw_images", "params:data"],
                outputs="manifest",
                name="build_manifest",
            ),
            node(
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
            # Separate from `validate`, so that the report is on disk when the gate stops the run.
            node(
                gate,
                inputs=["manifest", "validation_report"],
                outputs="validated_manifest",
                name="stop_if_invalid",
            ),
        ]
    )
