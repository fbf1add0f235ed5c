"""The latent_caching pipeline: encodes the good images once, before training."""

from decodiff_pipeline.pipelines.latent_caching.pipeline import create_pipeline

__all__ = ["create_pipeline"]
