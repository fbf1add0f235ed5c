"""CPU, memory, disk, network and GPU while a run lasts."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

from decodiff_pipeline.tracking.mlflow_values import first_line

if TYPE_CHECKING:
    from decodiff_pipeline.tracking.tracker import Tracker

logger = logging.getLogger(__name__)

SWITCH = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
INTERVAL = 10  # seconds between two samples
SAMPLES = 3  # to average for one point of the charts
PATIENCE = 20.0  # seconds to wait for the last point


class SystemMetrics:
    """A thread with MLflow's own monitors whose points go the tracker's way.

    MLflow's thread sends by itself: it stops for good at the first failure, and its end waits for
    the server without a limit. Here a point is a record like any other.

    Args:
        tracker: Of the run.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING`` is ``false``."""
        if os.environ.get(SWITCH, "").lower() in {"false", "0"}:
            return
        try:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            # Without a run's id or address, for it is never started.
            self._monitor = SystemMetricsMonitor(
                "", sampling_interval=INTERVAL, samples_before_logging=SAMPLES
            )
            self._monitor.collect_metrics()  # the first use of the CPU is that since the last call
            self._clear()
        except Exception as error:
            logger.warning("system metrics are not logged: %s", first_line(error))
            return
        self._thread = threading.Thread(target=self._watch, daemon=True, name="system metrics")
        self._thread.start()

    def stop(self) -> None:
        """Log what was sampled last, and end the thread."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(PATIENCE)

    def _watch(self) -> None:
        step = samples = 0
        try:
            while not self._over.wait(self._monitor.sampling_interval):
                self._monitor.collect_metrics()
                samples += 1
                if samples % self._monitor.samples_before_logging == 0:
                    self._log(step)
                    step += 1
            self._monitor.collect_metrics()
            self._log(step)
        except Exception as error:
            logger.warning("system metrics are not logged any more: %s", first_line(error))

    def _log(self, step: int) -> None:
        metrics: dict[str, float] = {}
        for monitor in self._monitor.monitors:
            metrics |= monitor.aggregate_metrics()
        node = f"{self._monitor.node_id}/" if self._monitor.node_id else ""
        tree = {f"system/{node}{name}": value for name, value in metrics.items()}
        self._tracker.log_metrics(tree, "the system", step=step)
        self._clear()

    def _clear(self) -> None:
        for monitor in self._monitor.monitors:
            monitor.clear_metrics()
