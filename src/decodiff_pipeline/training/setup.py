"""Makes a training run from a manifest and a latent cache."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.compute.group import ALONE, Group
from decodiff_pipeline.data.caching import wanted_latents, wanted_synthetic
from decodiff_pipeline.data.transforms import plain_inside
from decodiff_pipeline.deco.regions import EVERYTHING, latent_cells
from decodiff_pipeline.deco.unet import DeCoDiffUNet, build_unet
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.evaluation.protocols import image_sizes
from decodiff_pipeline.training.batches import Batch, Batches, LatentBatches
from decodiff_pipeline.training.identity import AUTO
from decodiff_pipeline.training.initial_weights import initialise_weights
from decodiff_pipeline.training.loop import TrainingRun
from decodiff_pipeline.training.on_the_fly import on_the_fly_batches
from decodiff_pipeline.training.validation import SyntheticDefects, Validation

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from decodiff_pipeline.data.caching import LatentCacheConfig
    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.data.latent_cache import LatentCache, LatentReader
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.deco.regions import Region
    from decodiff_pipeline.deco.weights import AutoencoderConfig
    from decodiff_pipeline.training.champion import Champions
    from decodiff_pipeline.training.checkpoints import CheckpointStore
    from decodiff_pipeline.training.config import TrainingConfig

ON_THE_FLY = "on_the_fly"  # a value of `training.latents`


def set_up_training(
    manifest: pd.DataFrame,
    cache: LatentCache,
    store: CheckpointStore,
    *,
    images: ImageFolder,
    geometry: PreprocessConfig,
    autoencoder: AutoencoderConfig,
    latents: LatentCacheConfig,
    config: TrainingConfig,
    champions: Champions | None = None,
    group: Group = ALONE,
    regions: Mapping[str, Region] | None = None,
) -> TrainingRun:
    """Open the latents and make a network with its initial weights.

    Only the first process of a group loads initial weights; the others receive them from it.

    Args:
        regions: Category → the region of its images that counts in the validation.

    Raises:
        CacheError: Latents are missing or damaged.
        ConfigurationError: ``training.init_from`` does not exist.
        DataError: There is no good training image.
        ModelError: The weights at ``training.init_from`` cannot be read or do not fit.
    """
    rows = _training_rows(manifest)
    categories = sorted(rows["category"].unique())
    if config.latents == ON_THE_FLY:
        # Only the unaugmented latents of the cache are used, for the channel statistics.
        latents = latents.model_copy(update={"views": 1})
    wanted = wanted_latents(manifest, "train", geometry, autoencoder, latents)
    keys = [latent.key for latent in wanted]
    reader = cache.reader(keys)
    unet = _unet(reader, categories, latents.views, config)
    ids = {category: number for number, category in enumerate(categories)}
    if config.latents == ON_THE_FLY:
        batches: Batches = on_the_fly_batches(
            rows, ids, images, geometry, autoencoder, latents, config, group
        )
    else:
        batches = _cached_batches(reader, rows, ids, latents.views, config)
    validation = _validation(
        manifest, cache, ids, geometry, autoencoder, latents, config, regions or {}
    )
    identity = _identity(categories, reader, keys, batches, validation, latents, config)
    initialised = None
    if group.first:
        initialised = initialise_weights(
            unet, identity, config, store=store, champions=champions, autoencoder=autoencoder
        )
    added, start = group.broadcast(initialised)
    unet.register_to_config(**added["channel_statistics"])
    return TrainingRun(unet, batches, validation, config, store, identity | added, start, group)


def _identity(
    categories: list[str],
    reader: LatentReader,
    keys: list[str],
    batches: Batches,
    validation: Validation,
    latents: LatentCacheConfig,
    config: TrainingConfig,
) -> dict[str, Any]:
    """The identity of a run, without its initial weights."""
    automatic = latents.bfloat16 == AUTO and config.latents == ON_THE_FLY
    return {
        **config.identity(),
        "categories": categories,
        "latent_shape": list(reader.shape),
        "latents_sha256": hashlib.sha256("".join(keys).encode()).hexdigest(),
        **batches.identity(),
        **({"autoencoder_dtype": AUTO} if automatic else {}),
        **({"validation_sha256": _validation_digest(validation)} if config.monitored else {}),
    }


def _training_rows(manifest: pd.DataFrame) -> pd.DataFrame:
    rows = manifest[(manifest["split"] == "train") & (manifest["label"] == "good")]
    if rows.empty:
        msg = f"the manifest has no good train images; run {kedro_run('data_validation')}"
        raise DataError(msg)
    return rows


def _unet(
    reader: LatentReader, categories: list[str], views: int, config: TrainingConfig
) -> DeCoDiffUNet:
    """The network with random weights, with channel statistics if latents are standardised."""
    channels, side = reader.shape[0], reader.shape[-1]
    torch.manual_seed(config.seed)
    unet = build_unet(config.preset, categories, side, channels, config.dropout)
    if config.standardise_latents:
        unet.register_to_config(**_channel_statistics(reader, views))
    return unet


def _cached_batches(
    reader: LatentReader,
    rows: pd.DataFrame,
    ids: dict[str, int],
    views: int,
    config: TrainingConfig,
) -> LatentBatches:
    return LatentBatches(
        reader,
        [ids[category] for category in rows["category"]],
        views=views,
        batch_size=config.batch_size,
        seed=config.seed,
        sample_posterior=config.sample_posterior,
        category_balance=config.category_balance,
    )


def _validation_digest(validation: Validation) -> str:
    """SHA-256 of the validation data, which determine early stopping and the best checkpoint."""
    digest = hashlib.sha256()
    synthetic = validation.synthetic
    parts = [*validation.batches, *([] if synthetic is None else [vars(synthetic).values()])]
    for part in parts:
        for tensor in part:
            digest.update(repr(tensor.shape).encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


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


def _validation(
    manifest: pd.DataFrame,
    cache: LatentCache,
    ids: dict[str, int],
    geometry: PreprocessConfig,
    autoencoder: AutoencoderConfig,
    latents: LatentCacheConfig,
    config: TrainingConfig,
    regions: Mapping[str, Region],
) -> Validation:
    # The network has no embedding for categories that are not trained on.
    rows = manifest[manifest["category"].isin(list(ids))]
    rows = rows[(rows["split"] == "val") & (rows["label"] == "good")]
    if rows.empty:
        return Validation([], config.corruption)
    wanted = wanted_latents(rows, "val", geometry, autoencoder, latents)
    good = _means(cache, [latent.key for latent in wanted])
    category_ids = torch.tensor([ids[category] for category in rows["category"]])
    size, versions = config.batch_size, latents.synthetic_defects
    batches = zip(good.split(size), category_ids.split(size), strict=True)
    synthetic = inside = None
    if versions:
        # The whole manifest is needed, since textures are taken from all val images.
        defects = wanted_synthetic(manifest, geometry, autoencoder, latents)
        items = [item for item in defects if item.image.category in ids]
        synthetic = SyntheticDefects(
            good=good.repeat_interleave(versions, 0),
            defective=_means(cache, [item.key for item in items]),
            masks=_means(cache, [item.mask_key for item in items])[:, 0],
            category_ids=category_ids.repeat_interleave(versions),
        )
        if regions:
            cells = _cells_inside(rows, regions, geometry, good.shape[-1])
            synthetic, inside = _inside_regions(synthetic, cells.repeat_interleave(versions, 0))
    held_out = [Batch(*parts) for parts in batches]
    return Validation(held_out, config.corruption, synthetic, size, inside)


def _cells_inside(
    rows: pd.DataFrame, regions: Mapping[str, Region], geometry: PreprocessConfig, side: int
) -> torch.Tensor:
    """The latent cells of images inside of their regions, bool (N, side, side)."""
    columns = zip(rows["category"], image_sizes(rows), rows["sha256"], strict=True)
    squares = [
        plain_inside(regions.get(category, EVERYTHING), size, geometry, sha256)
        for category, size, sha256 in columns
    ]
    return torch.from_numpy(latent_cells(np.stack(squares), side))


def _inside_regions(
    synthetic: SyntheticDefects, inside: torch.Tensor
) -> tuple[SyntheticDefects | None, torch.Tensor | None]:
    """The defects that touch their region, and the region's cells of each; None if none does.

    The cache holds defects anywhere in the image, so that it does not depend on the regions.
    """
    masks = synthetic.masks * inside
    touching = masks.amax((1, 2)) > 0
    if not touching.any():
        return None, None
    parts = synthetic.good, synthetic.defective, masks, synthetic.category_ids
    return SyntheticDefects(*(part[touching] for part in parts)), inside[touching]


def _means(cache: LatentCache, keys: list[str]) -> torch.Tensor:
    return cache.reader(keys).moments(range(len(keys))).mean
