"""The monitoring pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node, pipeline

from decodiff_pipeline.pipelines.monitoring.nodes import fail_on_drift, judge, measure_recent

PARAMETERS = "params:monitoring"


def create_pipeline(**_: object) -> Pipeline:
    """Recent images, a model and its reference in; an answer and a report out."""
    measured = ["monitored_model", "monitored_reference", "recent_images"]
    judged = ["monitored_reference", "recent_features", "recent_images"]
    found = ["monitoring", "monitoring_report"]
    return pipeline(
        [
            node(
                measure_recent,
                [*measured, PARAMETERS, "params:data"],
                "recent_features",
                name="measure_recent",
            ),
            node(judge, [*judged, PARAMETERS], found, name="judge_drift"),
            # Separate from `judge`, so that answer and report are on disk when it stops the run.
            node(fail_on_drift, [*found, PARAMETERS], None, name="fail_on_drift"),
        ]
    )
