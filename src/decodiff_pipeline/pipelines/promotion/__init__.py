"""The promotion pipeline: the newest version against the champion, moved or refused."""

from decodiff_pipeline.pipelines.promotion.pipeline import create_pipeline

__all__ = ["create_pipeline"]
