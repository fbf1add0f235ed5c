"""Kedro hooks: MLflow tracking, checks before a run, error messages, summary of a run."""

from decodiff_pipeline.hooks.errors import ErrorHooks
from decodiff_pipeline.hooks.preflight import PreflightHooks
from decodiff_pipeline.hooks.summary import SummaryHooks
from decodiff_pipeline.hooks.tracking import TrackingHooks

__all__ = ["ErrorHooks", "PreflightHooks", "SummaryHooks", "TrackingHooks"]
