"""The visibility pipeline: measures which defects image size and autoencoder can show."""

from decodiff_pipeline.pipelines.visibility.pipeline import create_pipeline

__all__ = ["create_pipeline"]
