"""The inference pipeline: scores, decisions, anomaly maps and overlays of new images."""

from __future__ import annotations

from decodiff_pipeline.pipelines.inference.pipeline import create_pipeline

__all__ = ["create_pipeline"]
