"""Say what the configured size and autoencoder cannot show, before anything is trained."""

from decodiff_pipeline.pipelines.visibility.pipeline import create_pipeline

__all__ = ["create_pipeline"]
