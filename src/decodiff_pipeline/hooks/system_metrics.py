"""MLflow's own system metrics (CPU, memory, disk, network, GPU) while a run lasts."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.tracking.mlflow_values import first_line

if TYPE_CHECKING:
    from decodiff_pipeline.tracking.tracker import Tracker

logger = logging.getLogger(__name__)

SWITCH = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
SAMPLES = 3  # of 10 s each, averaged for one point of the charts
PATIENCE = 20.0  # seconds to wait for MLflow's thread, which may be waiting for a server


class SystemMetrics:
    """MLflow's monitor on the run of a tracker; none where MLflow does not answer.

    Args:
        tracker: Of the run, which is started.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._over = threading.Event()
        self._ending: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING`` is ``false``."""
        off = os.environ.get(SWITCH, "").lower() in {"false", "0"}
        if off or self._tracker.run_id is None:
            return
        try:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            monitor = SystemMetricsMonitor(
                self._tracker.run_id,
                samples_before_logging=SAMPLES,
                tracking_uri=self._tracker.tracking_uri,
            )
        except Exception as error:  # such as psutil not installed
            logger.warning("system metrics are not logged: %s", first_line(error))
            return
        monitor.start()
        # Started now, because no thread can be started while the interpreter ends.
        self._ending = threading.Thread(target=self._end, args=[monitor], daemon=True)
        self._ending.start()

    def stop(self) -> None:
        """End MLflow's thread, or leave it to itself where a server does not answer."""
        self._over.set()
        if self._ending is not None:
            self._ending.join(PATIENCE)

    def _end(self, monitor: Any) -> None:
        self._over.wait()
        monitor.finish()
