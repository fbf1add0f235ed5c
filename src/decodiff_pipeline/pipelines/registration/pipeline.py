"""The registration pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from decodiff_pipeline.pipelines.registration.nodes import register_model


def create_pipeline(**_: object) -> Pipeline:
    """Model, thresholds, metrics and provenance in; registered version out."""
    return Pipeline(
        [
            Node(
                register_model,
                inputs={
                    "model_folder": "decodiff_model_folder",
                    "thresholds": "thresholds",
                    "metrics": "metrics",
                    "reference": "monitoring_reference",
                    "manifest": "validated_manifest",
                    "images": "raw_images",
                    "record": "evaluation_record",
                    "model_record": "model_record",
                    "provenance": "provenance",
                    "registration": "params:registration",
                },
                outputs="registration",
                name="register_model",
            )
        ]
    )
