"""The retrain pipeline: all stages and the promotion in one run."""

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
    """The six stages and the promotion: raw images in, champion out.

    Each node has a tag with the pipeline of its stage, such as ``stage.training``.
    ``deploy/airflow_dag.j2`` makes a task of each tag.
    """
    stages = (
        data_validation,
        latent_caching,
        visibility,
        training,
        evaluation,
        registration,
        promotion,
    )
    tagged = (
        stage.create_pipeline().tag(f"stage.{stage.__name__.rpartition('.')[2]}")
        for stage in stages
    )
    return sum(tagged, Pipeline([]))
