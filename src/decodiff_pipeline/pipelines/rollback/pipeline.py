"""The rollback pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from decodiff_pipeline.pipelines.rollback.nodes import roll_back, settle


def create_pipeline(**_: object) -> Pipeline:
    """Parameters and provenance in; champion and audit log out."""
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
