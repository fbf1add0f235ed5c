"""The retrain pipeline: all stages and the promotion in one run."""

from decodiff_pipeline.pipelines.retrain.pipeline import create_pipeline

__all__ = ["create_pipeline"]
