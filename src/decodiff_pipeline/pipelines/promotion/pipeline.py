"""The promotion pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from decodiff_pipeline.pipelines.promotion.nodes import judge_challenger, move_champion, settle

PARAMETERS = "params:promotion"


def create_pipeline(**_: object) -> Pipeline:
    """Registered version and test images in; champion, audit log and summary out."""
    return Pipeline(
        [
            Node(
                judge_challenger,
                [
                    "registration",
                    "validated_manifest",
                    "raw_images",
                    "promotion_store",
                    "params:evaluation",
                    PARAMETERS,
                ],
                "promotion_judgement",
                name="judge_challenger",
            ),
            Node(
                move_champion,
                ["promotion_judgement", "provenance", PARAMETERS],
                ["promotion", "promotion_log", "promotion_summary"],
                name="move_champion",
            ),
            # A node of its own, so that the audit log is saved before.
            Node(settle, ["promotion", PARAMETERS], None, name="settle_promotion"),
        ]
    )
