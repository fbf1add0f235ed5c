"""Encode the good images once, so that training never runs the autoencoder."""

from decodiff_pipeline.pipelines.latent_caching.pipeline import create_pipeline

__all__ = ["create_pipeline"]
