"""From a manifest and a cache to a training run, and from its last checkpoint to a network."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch

from decodiff_pipeline.data.caching import wanted_latents
from decodiff_pipeline.deco.unet import DeCoDiffUNet, build_unet
from decodiff_pipeline.errors import CheckpointError, DataError
from decodiff_pipeline.training.batches import Batch, LatentBatches
from decodiff_pipeline.training.loop import TrainingRun

if TYPE_CHECKING:
    import pandas as pd

    from decodiff_pipeline.data.caching import LatentCacheConfig
    from decodiff_pipeline.data.latent_cache import LatentCache, LatentReader
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.deco.weights import AutoencoderConfig
    from decodiff_pipeline.training.checkpoints import CheckpointStore
    from decodiff_pipeline.training.config import TrainingConfig


def prepare_run(
    manifest: pd.DataFrame,
    cache: LatentCache,
    store: CheckpointStore,
    *,
    geometry: PreprocessConfig,
    autoencoder: AutoencoderConfig,
    latents: LatentCacheConfig,
    config: TrainingConfig,
) -> TrainingRun:
    """Open the latents and make a network with random weights.

    Args:
        manifest: The validated manifest.
        cache: Latents of its train and val images.
        store: Where the run keeps its state.
        geometry: Resize and crop.
        autoencoder: Which autoencoder.
        latents: How the cache was filled.
        config: How to train.

    Raises:
        CacheError: Latents are missing or damaged.
        DataError: There is no good training image.
    """
    rows = manifest[(manifest["split"] == "train") & (manifest["label"] == "good")]
    categories = sorted(rows["category"].unique())
    if not categories:
        msg = "the manifest has no good train images; run kedro run --pipeline data_validation"
        raise DataError(msg)
    wanted = wanted_latents(manifest, "train", geometry, autoencoder, latents)
    keys = [latent.key for latent in wanted]
    reader = cache.reader(keys)
    shape = reader.shape
    torch.manual_seed(config.seed)
    unet = build_unet(config.preset, categories, shape[-1], shape[0], config.dropout)
    if config.standardise_latents:
        unet.register_to_config(**_channel_statistics(reader, latents.views))
    ids = {category: number for number, category in enumerate(categories)}
    return TrainingRun(
        unet=unet,
        batches=LatentBatches(
            reader,
            [ids[category] for category in rows["category"]],
            views=latents.views,
            batch_size=config.batch_size,
            seed=config.seed,
            sample_posterior=config.sample_posterior,
        ),
        held_out=_held_out(manifest, cache, ids, geometry, autoencoder, latents, config),
        config=config,
        store=store,
        identity={
            **config.identity(),
            "categories": categories,
            "latent_shape": list(shape),
            "channel_statistics": {
                name: unet.config[name] for name in ("latent_mean", "latent_std")
            },
            "latents_sha256": hashlib.sha256("".join(keys).encode()).hexdigest(),
        },
    )


def trained_network(store: CheckpointStore) -> DeCoDiffUNet:
    """The network of a finished run, with the moving average of its weights, in eval mode.

    Args:
        store: Where the run kept its state.

    Raises:
        CheckpointError: There is no finished run.
    """
    checkpoint = store.latest()
    if checkpoint is None or not checkpoint.finished:
        msg = f"{store.path} holds no finished training; run kedro run --pipeline training"
        raise CheckpointError(msg)
    identity: dict[str, Any] = checkpoint.identity
    unet = build_unet(
        identity["preset"],
        identity["categories"],
        identity["latent_shape"][-1],
        identity["latent_shape"][0],
        identity["dropout"],
    )
    unet.register_to_config(**identity["channel_statistics"])
    state = unet.state_dict()
    state |= {
        name.removeprefix("ema."): tensor
        for name, tensor in checkpoint.tensors.items()
        if name.startswith("ema.")
    }
    unet.load_state_dict(state)
    return unet.eval()


def _channel_statistics(reader: LatentReader, views: int) -> dict[str, list[float]]:
    """Mean and standard deviation per channel over the unaugmented training latents."""
    total, square, count = torch.zeros(()), torch.zeros(()), 0
    for start in range(0, len(reader), views):
        mean = reader.moments([start]).mean.double()
        total, square = total + mean.sum((0, 2, 3)), square + mean.square().sum((0, 2, 3))
        count += mean[:, 0].numel()
    average = total / count
    deviation = (square / count - average.square()).sqrt().clamp_min(1e-3)
    return {"latent_mean": average.tolist(), "latent_std": deviation.tolist()}


def _held_out(
    manifest: pd.DataFrame,
    cache: LatentCache,
    ids: dict[str, int],
    geometry: PreprocessConfig,
    autoencoder: AutoencoderConfig,
    latents: LatentCacheConfig,
    config: TrainingConfig,
) -> list[Batch]:
    rows = manifest[(manifest["split"] == "val") & (manifest["label"] == "good")]
    if rows.empty:
        return []
    wanted = wanted_latents(manifest, "val", geometry, autoencoder, latents)
    mean = cache.reader([latent.key for latent in wanted]).moments(range(len(wanted))).mean
    # An image of a category that is not trained on has no embedding to be judged with.
    known = rows["category"].isin(list(ids)).to_numpy()
    category_ids = torch.tensor([ids[category] for category in rows["category"][known]])
    return [
        Batch(*parts)
        for parts in zip(
            mean[torch.from_numpy(known)].split(config.batch_size),
            category_ids.split(config.batch_size),
            strict=True,
        )
    ]
