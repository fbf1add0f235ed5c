"""The monitoring pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from decodiff_pipeline.pipelines.monitoring.nodes import fail_on_drift, judge, measure_recent

PARAMETERS = "params:monitoring"


def create_pipeline(**_: object) -> Pipeline:
    """Recent images, a model and its reference in; drift result and report out."""
    model = ["monitored_model", "monitored_reference", "recent_images"]
    features = ["monitored_reference", "recent_features", "recent_images"]
    results = ["monitoring", "monitoring_report"]
    return Pipeline(
        [
            Node(
                measure_recent,
                [*model, PARAMETERS, "params:data"],
                "recent_features",
                name="measure_recent",
            ),
            Node(judge, [*features, PARAMETERS], results, name="judge_drift"),
            # A node of its own, so that the results are saved before it stops the run.
            Node(fail_on_drift, [*results, PARAMETERS], None, name="fail_on_drift"),
        ]
    )
