"""The autoencoder pipeline: trains an autoencoder, such as the one in the package."""

from decodiff_pipeline.pipelines.autoencoder.pipeline import create_pipeline

__all__ = ["create_pipeline"]
