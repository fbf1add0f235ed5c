"""Repeats the paper's questions on a chosen data set: what does each part of the method give?"""

from decodiff_pipeline.pipelines.ablation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
