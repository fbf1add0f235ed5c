"""The training pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node, pipeline

from decodiff_pipeline.pipelines.training.nodes import assemble_model, loss_rows, train_network


def create_pipeline(**_: object) -> Pipeline:
    """Latent cache in; checkpoints, training log and a complete model out."""
    return pipeline(
        [
            node(
                train_network,
                inputs=[
                    "validated_manifest",
                    "raw_images",
                    "latent_cache",
                    "checkpoint_store",
                    "params:preprocessing",
                    "params:autoencoder",
                    "params:latent_cache",
                    "params:training",
                    "params:scoring",
                    "champion_model",
                ],
                outputs=["checkpoints", "training_log", "training_summary"],
                name="train_network",
            ),
            node(loss_rows, "training_log", "plot_loss", name="loss_rows"),
            node(
                assemble_model,
                inputs=[
                    "checkpoints",
                    "validated_manifest",
                    "raw_images",
                    "params:preprocessing",
                    "params:autoencoder",
                    "params:scoring",
                ],
                outputs="decodiff_model",
                name="assemble_model",
            ),
        ]
    )
