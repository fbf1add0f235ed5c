"""Registers the pipelines of ``kedro run --pipelines``."""

from __future__ import annotations

from kedro.framework.project import find_pipelines
from kedro.pipeline import Pipeline

STAGES = (
    "data_validation",
    "latent_caching",
    "visibility",
    "training",
    "evaluation",
    "registration",
)


def register_pipelines() -> dict[str, Pipeline]:
    """All pipelines by folder name, and ``__default__`` with the six stages.

    Kedro imports only the folder of the requested pipeline, which keeps the start-up short.
    """
    pipelines = find_pipelines(raise_errors=True)
    if set(STAGES) <= set(pipelines):
        pipelines["__default__"] = sum((pipelines[name] for name in STAGES), Pipeline([]))
    return pipelines
