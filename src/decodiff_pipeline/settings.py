"""Kedro's project settings."""

from __future__ import annotations

from decodiff_pipeline.hooks import ErrorHooks, PreflightHooks, SummaryHooks, TrackingHooks

_tracking = TrackingHooks()

HOOKS = (ErrorHooks(), PreflightHooks(), _tracking, SummaryHooks(_tracking))
CONFIG_LOADER_ARGS = {"base_env": "base", "default_run_env": "local"}
