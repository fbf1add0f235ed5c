"""Nodes of the monitoring pipeline."""

from __future__ import annotations

from typing import Any

import pandas as pd

from decodiff_pipeline.data.manifest import DataConfig
from decodiff_pipeline.errors import DriftDetected
from decodiff_pipeline.monitoring.config import MonitoringConfig
from decodiff_pipeline.monitoring.reference import ReferenceFile
from decodiff_pipeline.monitoring.source import RecentSource


def measure_recent(
    model: Any,
    reference: ReferenceFile,
    source: RecentSource,
    config: MonitoringConfig,
    data: DataConfig,
) -> pd.DataFrame:
    """Measure the features of recent images; returns a row per image."""
    from decodiff_pipeline.deco.device import resolve_device
    from decodiff_pipeline.monitoring import recent

    model.to(resolve_device())
    return recent.measure_recent(model, reference.load(), source, config, data.max_pixels)


def judge(
    reference: ReferenceFile, recent: pd.DataFrame, source: RecentSource, config: MonitoringConfig
) -> tuple[dict[str, Any], str]:
    """Test the features for drift; returns the result as a JSON value and as an HTML page."""
    from decodiff_pipeline.monitoring import judgement

    result = judgement.judge(reference.load(), recent, config)
    return result, judgement.render_report(result, source)


def fail_on_drift(monitoring: dict[str, Any], _report: str, config: MonitoringConfig) -> None:
    """Fail on drift if ``monitoring.fail_on_drift`` is set.

    Raises:
        DriftDetected: The recent images differ from the reference.
    """
    if monitoring["retrain"] and config.fail_on_drift:
        raise DriftDetected(
            f"monitoring.fail_on_drift: recent images differ from the reference. "
            f"{' '.join(monitoring['why'])}"
        )
