"""From a registered version to a champion, or to the reasons why it is none."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from decodiff_pipeline.pipelines.promotion.nodes import (
    judge_challenger,
    move_champion,
    settle,
)

PARAMETERS = "params:promotion"
FOLDER = "promotion_store"


def create_pipeline(**_: object) -> Pipeline:
    """The promotion pipeline."""
    judged_on = ["registration", "validated_manifest", "raw_images", FOLDER, "params:evaluation"]
    return Pipeline(
        [
            Node(
                judge_challenger,
                [*judged_on, PARAMETERS],
                "promotion_judgement",
                name="judge_challenger",
            ),
            Node(
                move_champion,
                ["promotion_judgement", "provenance", PARAMETERS],
                ["promotion", "promotion_log", "promotion_summary"],
                name="move_champion",
            ),
            # Apart from moving, so that everything is written by then.
            Node(settle, ["promotion", PARAMETERS], None, name="settle_promotion"),
        ]
    )
