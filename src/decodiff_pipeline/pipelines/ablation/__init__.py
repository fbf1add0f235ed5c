"""The ablation pipeline: measures the effect of each part of the method on a data set."""

from decodiff_pipeline.pipelines.ablation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
