"""Kedro hooks: MLflow tracking, errors in one sentence, and the summary at the end of a run."""

from decodiff_pipeline.hooks.errors import ErrorHooks
from decodiff_pipeline.hooks.summary import SummaryHooks
from decodiff_pipeline.hooks.tracking import TrackingHooks

__all__ = ["ErrorHooks", "SummaryHooks", "TrackingHooks"]
