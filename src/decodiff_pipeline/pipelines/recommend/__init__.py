"""The recommend pipeline: writes a Kedro environment for a folder of images."""

from decodiff_pipeline.pipelines.recommend.pipeline import create_pipeline

__all__ = ["create_pipeline"]
