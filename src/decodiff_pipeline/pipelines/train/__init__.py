"""The train pipeline: data validation, latent caching, visibility and training in one run."""

from __future__ import annotations

from kedro.pipeline import Pipeline

from decodiff_pipeline.pipelines import data_validation, latent_caching, training, visibility


def create_pipeline(**_: object) -> Pipeline:
    """Raw images in; a trained model out."""
    stages = (data_validation, latent_caching, visibility, training)
    return sum((stage.create_pipeline() for stage in stages), Pipeline([]))
