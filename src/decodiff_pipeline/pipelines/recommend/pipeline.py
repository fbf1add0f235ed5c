"""The recommend pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from decodiff_pipeline.pipelines.recommend.nodes import recommend


def create_pipeline(**_: object) -> Pipeline:
    """A folder of images in; a Kedro environment out, which the node writes."""
    return Pipeline(
        [
            Node(
                recommend,
                inputs=[
                    "raw_folder",
                    "conf_folder",
                    "params:recommend",
                    "params:data",
                    "params:preprocessing",
                    "params:autoencoder",
                    "params:latent_cache",
                    "params:training",
                    "params:scoring",
                    "params:visibility",
                    "params:validation",
                    "params:evaluation",
                    "params:compute",
                ],
                outputs=None,
                name="recommend",
            )
        ]
    )
