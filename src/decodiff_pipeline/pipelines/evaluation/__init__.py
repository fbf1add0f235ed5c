"""The evaluation pipeline: predictions, thresholds, metrics, figures and report of a model."""

from __future__ import annotations

from decodiff_pipeline.pipelines.evaluation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
