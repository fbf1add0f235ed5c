"""The pipelines that ``kedro run --pipelines`` knows."""

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
    """Every pipeline by the name of its folder; the default runs the six stages.

    Kedro imports only the folder of the pipeline that was asked for, so that the others cost
    nothing at start-up.
    """
    pipelines = find_pipelines(raise_errors=True)
    if set(STAGES) <= set(pipelines):
        pipelines["__default__"] = sum((pipelines[name] for name in STAGES), Pipeline([]))
    return pipelines
