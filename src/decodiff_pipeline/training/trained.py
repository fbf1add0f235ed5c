"""From the checkpoints of a training to its network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from decodiff_pipeline.deco.unet import DeCoDiffUNet, build_unet
from decodiff_pipeline.errors import CheckpointError
from decodiff_pipeline.training.state import load_average

if TYPE_CHECKING:
    from decodiff_pipeline.training.checkpoints import Checkpoint, CheckpointStore


def trained_network(store: CheckpointStore) -> DeCoDiffUNet:
    """The network of a finished run, with the moving average of its weights, in eval mode.

    It is the last network or the best one, as the run's ``training.weights`` says.

    Args:
        store: Where the run kept its state.

    Raises:
        CheckpointError: There is no finished run, or the checkpoint needed is damaged.
    """
    checkpoint = store.latest()
    if checkpoint is None or not checkpoint.finished:
        msg = f"{store.path} holds no finished training; run kedro run --pipelines training"
        raise CheckpointError(msg)
    if checkpoint.identity.get("weights") == "best":
        checkpoint = store.best(checkpoint)
    return averaged_network(checkpoint)


def averaged_network(checkpoint: Checkpoint) -> DeCoDiffUNet:
    """The network of a checkpoint, with the moving average of its weights, in eval mode."""
    identity: dict[str, Any] = checkpoint.identity
    unet = build_unet(
        identity["preset"],
        identity["categories"],
        identity["latent_shape"][-1],
        identity["latent_shape"][0],
        identity["dropout"],
    )
    unet.register_to_config(**identity["channel_statistics"])
    load_average(unet, checkpoint.tensors)
    return unet.eval()
