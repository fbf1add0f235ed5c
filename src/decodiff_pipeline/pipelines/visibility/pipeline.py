"""The visibility pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node, pipeline

from decodiff_pipeline.pipelines.visibility.nodes import check_visibility


def create_pipeline(**_: object) -> Pipeline:
    """Validated manifest and raw images in; figures and a page out."""
    return pipeline(
        [
            node(
                check_visibility,
                inputs=[
                    "validated_manifest",
                    "raw_images",
                    "params:preprocessing",
                    "params:autoencoder",
                    "params:training",
                    "params:scoring",
                    "params:visibility",
                ],
                outputs=["visibility", "visibility_html"],
                # Kedro runs what is ready by name: after cache_latents, before train_network.
                name="check_visibility",
            )
        ]
    )
