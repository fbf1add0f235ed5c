"""The training pipeline: trains the network on cached latents and assembles the model."""

from decodiff_pipeline.pipelines.training.pipeline import create_pipeline

__all__ = ["create_pipeline"]
