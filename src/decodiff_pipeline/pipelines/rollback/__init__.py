"""The rollback pipeline: makes the previous champion the champion again."""

from decodiff_pipeline.pipelines.rollback.pipeline import create_pipeline

__all__ = ["create_pipeline"]
