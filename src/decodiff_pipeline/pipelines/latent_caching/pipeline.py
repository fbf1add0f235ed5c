"""The latent_caching pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from decodiff_pipeline.pipelines.latent_caching.nodes import cache_latents


def create_pipeline(**_: object) -> Pipeline:
    """Validated manifest and raw images in; latent cache out."""
    return Pipeline(
        [
            Node(
                cache_latents,
                inputs=[
                    "validated_manifest",
                    "raw_images",
                    "latent_store",
                    "params:preprocessing",
                    "params:autoencoder",
                    "params:latent_cache",
                    "params:compute",
                ],
                outputs="latent_cache",
                name="cache_latents",
            )
        ]
    )
