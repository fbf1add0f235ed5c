"""Train the network on cached latents and put the whole model together."""

from decodiff_pipeline.pipelines.training.pipeline import create_pipeline

__all__ = ["create_pipeline"]
