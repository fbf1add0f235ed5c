"""The visibility pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from decodiff_pipeline.pipelines.visibility.nodes import check_visibility


def create_pipeline(**_: object) -> Pipeline:
    """Validated manifest and raw images in; measurements and a report out."""
    return Pipeline(
        [
            Node(
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
                # Kedro orders nodes that are ready by name: this one runs before train_network.
                name="check_visibility",
            )
        ]
    )
