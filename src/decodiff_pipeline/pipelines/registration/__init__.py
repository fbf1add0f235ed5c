"""The registration pipeline: registers the trained model as a version in the model registry."""

from decodiff_pipeline.pipelines.registration.pipeline import create_pipeline

__all__ = ["create_pipeline"]
