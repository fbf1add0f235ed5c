"""Fill the latent cache with what training needs and the cache does not have yet."""

from __future__ import annotations

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from decodiff_pipeline.data.latent_cache import LatentCache, LatentMoments, latent_key
from decodiff_pipeline.data.transforms import AugmentationConfig, augmented_square
from decodiff_pipeline.deco import weights
from decodiff_pipeline.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.config import PreprocessConfig

logger = logging.getLogger(__name__)

READERS = 4
BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
# Room that must stay free beside the latents: index, logs, the next checkpoint.
SPARE_BYTES = 256 * 2**20


class LatentCacheConfig(BaseModel):
    """How latents are made and kept.

    Attributes:
        views: Views of every training image: the image itself and ``views - 1`` augmented ones.
        augmentation: What the augmented views are drawn from.
        dtype: Stored precision.
        bfloat16: Run the autoencoder in bfloat16; about twice as fast where the processor has
            it, at a relative error of about 1 % of a latent's standard deviation.
        batch_size: Images encoded at once.
        shard_size: Latents per file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    views: int = Field(default=4, ge=1)
    augmentation: AugmentationConfig = AugmentationConfig()
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    bfloat16: bool = False
    batch_size: int = Field(default=16, ge=1)
    shard_size: int = Field(default=1024, ge=1)


class Wanted(NamedTuple):
    """A latent that training will ask for."""

    key: str
    path: str
    sha256: str
    view: int


def wanted_latents(
    manifest: pd.DataFrame,
    split: str,
    geometry: PreprocessConfig,
    autoencoder: weights.AutoencoderConfig,
    config: LatentCacheConfig,
) -> list[Wanted]:
    """The latents of one split's good images, image by image, views together.

    Args:
        manifest: The validated manifest.
        split: ``train`` gives all views, any other split the image itself alone.
        geometry: Resize and crop.
        autoencoder: Which autoencoder.
        config: Views and precision.

    Raises:
        ConfigurationError: The autoencoder's weights are not there.
    """
    digest = weights.digest(autoencoder)
    rows = manifest[(manifest["split"] == split) & (manifest["label"] == "good")]
    views = config.views if split == "train" else 1
    return [
        Wanted(
            latent_key(
                sha256,
                view,
                autoencoder_digest=digest,
                geometry=geometry,
                augmentation=config.augmentation,
                dtype=config.dtype,
            ),
            path,
            sha256,
            view,
        )
        for path, sha256 in zip(rows["path"], rows["sha256"], strict=True)
        for view in range(views)
    ]


def fill_cache(
    cache: LatentCache,
    *,
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    autoencoder: weights.AutoencoderConfig,
    config: LatentCacheConfig,
) -> int:
    """Encode what is missing of the train and val splits.

    A second call with the same arguments encodes nothing and does not import torch. A call that
    was killed goes on at the shard it was writing.

    Args:
        cache: Where latents are kept.
        manifest: The validated manifest.
        images: The raw images.
        geometry: Resize and crop.
        autoencoder: Which autoencoder.
        config: Views, precision and batches.

    Returns:
        How many latents were encoded.

    Raises:
        CacheError: The disk has too little room or refuses to write.
        ConfigurationError: The autoencoder's weights are not there.
        ImageError: An image cannot be read.
    """
    wanted = {
        latent.key: latent
        for split in ("train", "val")
        for latent in wanted_latents(manifest, split, geometry, autoencoder, config)
    }
    missing = [wanted[key] for key in cache.missing(wanted)]
    logger.info("%d latents wanted, %d of them to encode", len(wanted), len(missing))
    if missing:
        _encode_missing(
            cache,
            missing,
            images=images,
            geometry=geometry,
            autoencoder=autoencoder,
            config=config,
        )
    return len(missing)


def _encode_missing(
    cache: LatentCache,
    missing: list[Wanted],
    *,
    images: ImageFolder,
    geometry: PreprocessConfig,
    autoencoder: weights.AutoencoderConfig,
    config: LatentCacheConfig,
) -> None:
    import torch
    from tqdm import tqdm

    from decodiff_pipeline.deco.autoencoder import encode, load_autoencoder, reduction
    from decodiff_pipeline.deco.preprocess import to_tensor

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_autoencoder(autoencoder).to(device, memory_format=torch.channels_last)
    if config.bfloat16:
        model = model.to(torch.bfloat16)
    side = geometry.image_size // reduction(model)
    _check_room(cache, len(missing) * 2 * model.config.latent_channels * side**2, config.dtype)
    with tqdm(total=len(missing), desc="encoding", unit="images") as bar:
        for shard in _chunks(missing, config.shard_size):
            parts = []
            for batch in _squares(shard, images, geometry, config):
                tensor = to_tensor(batch).contiguous(memory_format=torch.channels_last)
                parts.append([moment.cpu() for moment in encode(model, tensor)])
                bar.update(len(batch))
            mean, std = (torch.cat(moments) for moments in zip(*parts, strict=True))
            cache.append([latent.key for latent in shard], LatentMoments(mean, std), config.dtype)


def _squares(
    latents: list[Wanted],
    images: ImageFolder,
    geometry: PreprocessConfig,
    config: LatentCacheConfig,
) -> Iterator[list[np.ndarray]]:
    """Read and augment images in threads, in batches and in order."""

    def square(latent: Wanted) -> np.ndarray:
        return augmented_square(
            images.read(latent.path), geometry, config.augmentation, latent.sha256, latent.view
        )

    with ThreadPoolExecutor(READERS) as pool:
        for batch in _chunks(latents, config.batch_size):
            yield list(pool.map(square, batch))


def _chunks(items: list[Wanted], size: int) -> Iterator[list[Wanted]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _check_room(cache: LatentCache, values: int, dtype: str) -> None:
    cache.path.mkdir(parents=True, exist_ok=True)
    needed = values * BYTES[dtype] + SPARE_BYTES
    free = shutil.disk_usage(cache.path).free
    if free < needed:
        msg = (
            f"latent cache {cache.path} needs {needed / 2**20:.0f} MiB but the disk has "
            f"{free / 2**20:.0f} MiB left; free some, or lower latent_cache.views"
        )
        raise CacheError(msg)
