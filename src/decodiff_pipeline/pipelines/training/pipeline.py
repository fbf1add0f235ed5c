"""The training pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from decodiff_pipeline.pipelines.training.nodes import (
    assemble_model,
    loss_rows,
    record_model,
    train_network,
)

NETWORK = ["params:preprocessing", "params:autoencoder", "params:latent_cache", "params:training"]
MODEL = ["params:preprocessing", "params:autoencoder", "params:scoring"]


def create_pipeline(**_: object) -> Pipeline:
    """Latent cache in; checkpoints, training log and model out."""
    return Pipeline(
        [
            Node(
                train_network,
                inputs=[
                    "validated_manifest",
                    "raw_images",
                    "latent_cache",
                    "checkpoint_store",
                    *NETWORK,
                    "params:scoring",
                    "champion_model",
                    "params:compute",
                ],
                outputs=["checkpoints", "training_log", "training_summary"],
                name="train_network",
            ),
            Node(loss_rows, "training_log", "plot_loss", name="tabulate_loss"),
            Node(
                assemble_model,
                inputs=[
                    "checkpoints",
                    "validated_manifest",
                    "raw_images",
                    *MODEL,
                    "decodiff_model_folder",
                    "model_record_store",
                ],
                outputs=["decodiff_model", "model_inputs"],
                name="assemble_model",
            ),
            Node(
                record_model,
                inputs=[
                    "model_inputs",
                    "decodiff_model_folder",
                    "model_record_store",
                    "provenance",
                    *NETWORK,
                    "params:scoring",
                ],
                outputs="model_record",
                name="record_model",
            ),
        ]
    )
