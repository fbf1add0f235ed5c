"""The autoencoder pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from decodiff_pipeline.pipelines.autoencoder.nodes import fit_autoencoder, measure_autoencoder


def create_pipeline(**_: object) -> Pipeline:
    """Validated manifest and raw images in; weights, training log, metrics and a report out."""
    return Pipeline(
        [
            Node(
                fit_autoencoder,
                inputs=["validated_manifest", "raw_images", "params:autoencoder_training"],
                outputs=["fitted_autoencoder", "autoencoder_log"],
                name="fit_autoencoder",
            ),
            Node(
                measure_autoencoder,
                inputs=[
                    "fitted_autoencoder",
                    "validated_manifest",
                    "raw_images",
                    "params:preprocessing",
                    "params:training",
                    "params:scoring",
                    "params:visibility",
                ],
                outputs=["autoencoder_metrics", "autoencoder_html"],
                name="measure_autoencoder",
            ),
        ]
    )
