"""From a trained model to predictions, thresholds, metrics, figures and a report."""

from __future__ import annotations

from decodiff_pipeline.pipelines.evaluation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
