"""Fit an autoencoder on one's own good images, or the one that the package embeds."""

from decodiff_pipeline.pipelines.autoencoder.pipeline import create_pipeline

__all__ = ["create_pipeline"]
