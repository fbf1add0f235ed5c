"""The rollback pipeline: the champion before, within seconds."""

from decodiff_pipeline.pipelines.rollback.pipeline import create_pipeline

__all__ = ["create_pipeline"]
