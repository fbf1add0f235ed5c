"""Nodes of the latent_caching pipeline."""

from __future__ import annotations

import pandas as pd

from decodiff_pipeline.compute.config import ComputeConfig
from decodiff_pipeline.data.caching import LatentCacheConfig, fill_cache
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.latent_cache import LatentCache
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.weights import AutoencoderConfig


def cache_latents(
    manifest: pd.DataFrame,
    images: ImageFolder,
    store: LatentCache,
    geometry: PreprocessConfig,
    autoencoder: AutoencoderConfig,
    config: LatentCacheConfig,
    compute: ComputeConfig,
) -> LatentCache:
    """Encode the good train and val images whose latents are missing; returns the cache."""
    fill_cache(
        store,
        manifest=manifest,
        images=images.of(manifest),
        geometry=geometry,
        autoencoder=autoencoder,
        config=config,
        compute=compute,
    )
    return store
