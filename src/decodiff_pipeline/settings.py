"""Kedro's project settings."""

from __future__ import annotations

import os

from decodiff_pipeline.config_loader import ConfigLoader
from decodiff_pipeline.hooks import ErrorHooks, PreflightHooks, SummaryHooks, TrackingHooks

# At every load, diffusers warns about configuration entries that it wrote itself.
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

_tracking = TrackingHooks()

HOOKS = (ErrorHooks(), PreflightHooks(), _tracking, SummaryHooks(_tracking))
# Kedro-Viz's hooks write .viz at every run, and warn about runs of a single pipeline.
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-viz",)
CONFIG_LOADER_CLASS = ConfigLoader
CONFIG_LOADER_ARGS = {"base_env": "base", "default_run_env": "local"}
