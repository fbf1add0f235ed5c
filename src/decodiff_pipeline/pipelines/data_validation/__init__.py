"""The data_validation pipeline: lists, measures and checks the raw images."""

from __future__ import annotations

from decodiff_pipeline.pipelines.data_validation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
