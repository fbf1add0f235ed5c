"""From a bad champion to the one before."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from decodiff_pipeline.pipelines.rollback.nodes import roll_back, settle


def create_pipeline(**_: object) -> Pipeline:
    """The rollback pipeline."""
    return Pipeline(
        [
            Node(
                roll_back,
                ["provenance", "params:registration", "params:rollback"],
                ["rollback", "promotion_log"],
                name="roll_back",
            ),
            Node(settle, "rollback", None, name="settle_rollback"),
        ]
    )
