"""The monitoring pipeline: tests recent images for drift from the model's reference."""

from __future__ import annotations

from decodiff_pipeline.pipelines.monitoring.pipeline import create_pipeline

__all__ = ["create_pipeline"]
