"""Compares recent images with the reference beside the model: has anything changed?"""

from __future__ import annotations

from decodiff_pipeline.pipelines.monitoring.pipeline import create_pipeline

__all__ = ["create_pipeline"]
