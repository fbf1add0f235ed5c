"""From raw images to a champion, or to the reasons why there is no new one, in one run."""

from __future__ import annotations

from kedro.pipeline import Pipeline

from decodiff_pipeline.pipelines import (
    data_validation,
    evaluation,
    latent_caching,
    promotion,
    registration,
    training,
    visibility,
)


def create_pipeline(**_: object) -> Pipeline:
    """The six stages and the promotion."""
    stages = (
        data_validation,
        latent_caching,
        visibility,
        training,
        evaluation,
        registration,
        promotion,
    )
    return sum((stage.create_pipeline() for stage in stages), Pipeline([]))
