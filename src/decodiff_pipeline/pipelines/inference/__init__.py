"""From images to scores, decisions, anomaly maps and overlays, with a trained model."""

from __future__ import annotations

from decodiff_pipeline.pipelines.inference.pipeline import create_pipeline

__all__ = ["create_pipeline"]
