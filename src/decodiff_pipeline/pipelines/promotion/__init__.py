"""The promotion pipeline: makes the newest version champion if it passes its gates."""

from decodiff_pipeline.pipelines.promotion.pipeline import create_pipeline

__all__ = ["create_pipeline"]
