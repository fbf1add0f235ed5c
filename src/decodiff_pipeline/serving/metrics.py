"""Prometheus metrics at ``/metrics``: requests, latencies, scores, decisions, model version."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from fastapi.responses import Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import pandas as pd
    from fastapi import FastAPI, Request

# Folder in which several workers store their counters; ``/metrics`` of any worker sums them.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
ENDPOINTS = {"invocations", "infer"}  # the last part of the path

REQUESTS = Counter("decodiff_requests", "Requests by endpoint and status.", ["endpoint", "status"])
LATENCY = Histogram(
    "decodiff_request_seconds",
    "Time to answer a request.",
    ["endpoint"],
    buckets=(0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 2, 5, 10, 30, 60),
)
SCORES = Histogram(
    "decodiff_score",
    "Anomaly scores of answered images.",
    ["category"],
    buckets=[step / 20 for step in range(1, 21)],
)
DECISIONS = Counter("decodiff_decisions", "Answered images.", ["category", "decision"])
VERSION = Gauge(
    "decodiff_model_info",
    "1 for the version that answers.",
    ["model_version", "model_sha256"],
    multiprocess_mode="max",
)


class CountedModel:
    """Wraps a loaded MLflow model and counts its scores and decisions for all endpoints."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.metadata = model.metadata

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """See `serving.served_model.ServedModel.predict`."""
        table: pd.DataFrame = self._model.predict(data, params=params)
        for row in table.to_dict("records"):
            DECISIONS.labels(row["category"], row["decision"] or "none").inc()
            if row["score"] is not None:
                SCORES.labels(row["category"]).observe(row["score"])
        return table


def add_metrics(app: FastAPI, version: Mapping[str, str | None]) -> None:
    """Count the requests of an application and add ``GET /metrics``.

    Args:
        app: The application, with all other routes and middleware already added.
    """
    VERSION.labels(version["model_version"] or "", version["model_sha256"] or "").set(1)

    @app.get("/metrics")
    def metrics() -> Response:
        registry = REGISTRY
        if FOLDER_VARIABLE in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.middleware("http")
    async def count(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        start = time.perf_counter()
        response = await call_next(request)
        endpoint = request.url.path.rpartition("/")[2]
        if request.method == "POST" and endpoint in ENDPOINTS:
            REQUESTS.labels(endpoint, response.status_code).inc()
            LATENCY.labels(endpoint).observe(time.perf_counter() - start)
        return response
