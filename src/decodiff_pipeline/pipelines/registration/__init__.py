"""The registration pipeline: a version in the model registry, with its identity and metrics."""

from decodiff_pipeline.pipelines.registration.pipeline import create_pipeline

__all__ = ["create_pipeline"]
