"""Kedro hooks: MLflow tracking, a look ahead, errors in one sentence, a summary at the end."""

from decodiff_pipeline.hooks.errors import ErrorHooks
from decodiff_pipeline.hooks.preflight import PreflightHooks
from decodiff_pipeline.hooks.summary import SummaryHooks
from decodiff_pipeline.hooks.tracking import TrackingHooks

__all__ = ["ErrorHooks", "PreflightHooks", "SummaryHooks", "TrackingHooks"]
