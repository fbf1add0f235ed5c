"""The retrain pipeline: everything, and the promotion behind its gates."""

from decodiff_pipeline.pipelines.retrain.pipeline import create_pipeline

__all__ = ["create_pipeline"]
