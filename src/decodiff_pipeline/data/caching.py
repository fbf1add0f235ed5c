"""Encodes the latents that training needs and the cache does not have yet."""

from __future__ import annotations

import logging
import shutil
from contextlib import closing, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from decodiff_pipeline.compute.config import ONE_PROCESS, ComputeConfig, plan_images, use_threads
from decodiff_pipeline.compute.group import ALONE, Group, current_group
from decodiff_pipeline.compute.launch import launch
from decodiff_pipeline.data.bit_depth import pixel_identities
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.latent_cache import LatentCache, LatentMoments, latent_key, shard_name
from decodiff_pipeline.data.read_ahead import read_ahead
from decodiff_pipeline.data.synthetic_images import SyntheticImage, synthetic_images
from decodiff_pipeline.data.transforms import AugmentationConfig, augmented_square
from decodiff_pipeline.deco import weights
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.device import keep_freed_memory, resolve_bfloat16, resolve_device
from decodiff_pipeline.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd
    import torch

logger = logging.getLogger(__name__)

BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
# Disk space that stays free for the index, logs and the next checkpoint.
SPARE_BYTES = 256 * 2**20
# With larger weights, `auto` starts one process, which uses all cores and one copy of the weights.
SMALL_BYTES = 100 * 2**20


class LatentCacheConfig(BaseModel):
    """How latents are encoded and stored.

    Attributes:
        views: Views of each training image: the image itself and ``views - 1`` augmented views.
        augmentation: Random transformations of the augmented views.
        synthetic_defects: Copies of each val image with a synthetic defect, for validation during
            training; 0 for none.
        dtype: Data type of the stored latents.
        bfloat16: Run the autoencoder in bfloat16: about twice as fast on hardware that supports it,
            with an error of about 1 % of the latents' standard deviation. ``auto`` uses bfloat16
            if the processor or the GPU supports it. Latents in the cache are not encoded again.
        batch_size: Images per batch.
        shard_size: Largest number of latents in a file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    views: int = Field(default=4, ge=1)
    augmentation: AugmentationConfig = AugmentationConfig()
    synthetic_defects: int = Field(default=1, ge=0)
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    bfloat16: bool | Literal["auto"] = False
    batch_size: int = Field(default=16, ge=1)
    shard_size: int = Field(default=1024, ge=1)


class Wanted(NamedTuple):
    """A view of an image, and the key of its latent."""

    key: str
    path: str
    sha256: str
    view: int


class WantedSynthetic(NamedTuple):
    """A val image with a synthetic defect, and the keys of its latent and of its mask."""

    key: str  # of the latent
    mask_key: str  # of the mask: fraction of each latent cell that is defective, one channel
    image: SyntheticImage


def wanted_latents(
    manifest: pd.DataFrame,
    split: str,
    geometry: PreprocessConfig,
    autoencoder: weights.AutoencoderConfig,
    config: LatentCacheConfig,
) -> list[Wanted]:
    """The latents of the good images in one split, ordered by image, then by view.

    The train split has all views; other splits have view 0 only, which is the image itself.

    Raises:
        ConfigurationError: The autoencoder's weights are missing.
    """
    key = _keys(geometry, autoencoder, config)
    rows = manifest[(manifest["split"] == split) & (manifest["label"] == "good")]
    views = config.views if split == "train" else 1
    return [
        Wanted(key(pixels, view), path, sha256, view)
        for path, sha256, pixels in zip(
            rows["path"], rows["sha256"], pixel_identities(rows), strict=True
        )
        for view in range(views)
    ]


def wanted_synthetic(
    manifest: pd.DataFrame,
    geometry: PreprocessConfig,
    autoencoder: weights.AutoencoderConfig,
    config: LatentCacheConfig,
) -> list[WantedSynthetic]:
    """The synthetic defects of the good val images, in the order of the manifest.

    Raises:
        ConfigurationError: The autoencoder's weights are missing.
    """
    key = _keys(geometry, autoencoder, config)
    return [
        WantedSynthetic(key(image.identity, 0), key(f"{image.identity} mask", 0), image)
        for image in synthetic_images(manifest, config.synthetic_defects)
    ]


def _keys(
    geometry: PreprocessConfig, autoencoder: weights.AutoencoderConfig, config: LatentCacheConfig
) -> Callable[[str, int], str]:
    return partial(
        latent_key,
        autoencoder_digest=weights.digest(autoencoder),
        geometry=geometry,
        augmentation=config.augmentation,
        dtype=config.dtype,
    )


def fill_cache(
    cache: LatentCache,
    *,
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    autoencoder: weights.AutoencoderConfig,
    config: LatentCacheConfig,
    compute: ComputeConfig = ONE_PROCESS,
) -> int:
    """Encode the train and val latents that the cache lacks; return their number.

    The latents do not depend on the number of processes. If none is missing, torch is not
    imported. After a killed call, only the shards that it did not finish are encoded.

    Raises:
        CacheError: The disk has too little space, a write fails, or another run is writing.
        ComputeError: A process was killed.
        ConfigurationError: The autoencoder's weights are missing.
        ImageError: An image cannot be read.
    """
    group = current_group() or ALONE
    with cache.locked() if group.first else nullcontext():
        if group.first:
            cache.merge_journal()
        group.barrier()
        missing = _missing(cache, manifest, geometry, autoencoder, config)
        if not missing:
            return 0
        job = _Job(
            cache=cache.path, items=missing, first=cache.next_number(),
            images=images.path, bits=images.bits, max_pixels=images.max_pixels,
            geometry=geometry, autoencoder=autoencoder, config=config,
        )  # fmt: skip
        group.barrier()
        file = weights.locate(autoencoder) / weights.WEIGHTS_FILE
        workers = plan_images(compute, len(missing), small=file.stat().st_size < SMALL_BYTES)
        if group.size == 1 and workers.processes > 1:
            launch(f"{__name__}:encode_rank", job, workers)
        else:
            with use_threads(workers.threads):
                _encode(job, images, group)
        group.barrier()
        if group.first:
            cache.merge_journal()
    group.barrier()
    return len(missing)


def _missing(
    cache: LatentCache,
    manifest: pd.DataFrame,
    geometry: PreprocessConfig,
    autoencoder: weights.AutoencoderConfig,
    config: LatentCacheConfig,
) -> list[Wanted | WantedSynthetic]:
    wanted = {
        latent.key: latent
        for split in ("train", "val")
        for latent in wanted_latents(manifest, split, geometry, autoencoder, config)
    }
    synthetic = wanted_synthetic(manifest, geometry, autoencoder, config)
    absent = set(cache.missing([*wanted, *(key for item in synthetic for key in item[:2])]))
    plain = [latent for key, latent in wanted.items() if key in absent]
    # A latent is used with its mask: if one is missing, both are made.
    defects = {item.key: item for item in synthetic if absent.intersection(item[:2])}
    needed, count = len(wanted) + len({item.key for item in synthetic}), len(plain) + len(defects)
    logger.info("%d latents are needed, %d of them are not cached yet", needed, count)
    return [*plain, *defects.values()]


class _Job(BaseModel):
    """Arguments of the encoding processes."""

    cache: Path
    items: list[Wanted | WantedSynthetic]
    first: int
    images: Path
    bits: dict[str, int]
    max_pixels: int
    geometry: PreprocessConfig
    autoencoder: weights.AutoencoderConfig
    config: LatentCacheConfig


def encode_rank(content: str, group: Group) -> None:
    """Encode in one of several processes; ``content`` is a `_Job` as JSON."""
    job = _Job.model_validate_json(content)
    _encode(job, ImageFolder(job.images, job.bits, job.max_pixels), group)


def _encode(job: _Job, images: ImageFolder, group: Group) -> None:
    """Encode the items of this process, shard by shard."""
    import torch
    from tqdm import tqdm

    from decodiff_pipeline.deco.autoencoder import encode, load_autoencoder, reduction
    from decodiff_pipeline.deco.preprocess import to_tensor

    keep_freed_memory()
    cache, config, device = LatentCache(job.cache), job.config, resolve_device()
    model = load_autoencoder(job.autoencoder).to(device, memory_format=torch.channels_last)
    if resolve_bfloat16(config.bfloat16, device):
        model = model.to(torch.bfloat16)
    side = job.geometry.image_size // reduction(model)
    _check_room(cache, len(job.items) * 2 * model.config.latent_channels * side**2, config.dtype)
    shards = group.shards(len(job.items), config.batch_size, config.shard_size)
    total = sum(rows.stop - rows.start for _, rows in shards)
    name = f"encoding, process 0 of {group.size}" if group.size > 1 else "encoding"
    with tqdm(total=total, desc=name, unit="images", disable=not group.first) as bar:
        for number, rows in shards:
            shard = job.items[rows]
            parts: list[list[torch.Tensor]] = []
            masks: dict[str, np.ndarray] = {}
            for squares, batch_masks in _drawn(shard, images, job.geometry, config):
                tensor = to_tensor(squares).contiguous(memory_format=torch.channels_last)
                parts.append([moment.cpu() for moment in encode(model, tensor)])
                masks |= batch_masks
                bar.update(len(squares))
            moments = LatentMoments(*(torch.cat(part) for part in zip(*parts, strict=True)))
            if masks:
                shares = torch.stack([_shares(mask, side) for mask in masks.values()])
                file = shard_name(job.first + number, "masks")
                cache.append(list(masks), LatentMoments(shares, shares[:, :0]), config.dtype, file)
            keys, file = [item.key for item in shard], shard_name(job.first + number)
            cache.append(keys, moments, config.dtype, file)


def _drawn(
    items: Sequence[Wanted | WantedSynthetic],
    images: ImageFolder,
    geometry: PreprocessConfig,
    config: LatentCacheConfig,
) -> Iterator[tuple[list[np.ndarray], dict[str, np.ndarray]]]:
    """Read images in threads and augment them or draw a defect, in batches and in order.

    Yields:
        A batch of square images, and the masks of its synthetic defects by mask key.
    """

    def draw(item: Wanted | WantedSynthetic) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        if isinstance(item, WantedSynthetic):
            square, mask = item.image.draw(images, geometry)
            return square, {item.mask_key: mask}
        image = images.read(item.path)
        return augmented_square(image, geometry, config.augmentation, item.sha256, item.view), {}

    size = min(config.batch_size, config.shard_size)
    with closing(read_ahead(draw, items, 2 * size)) as found:
        while drawn := list(islice(found, size)):
            yield (
                [square for square, _ in drawn],
                {key: mask for _, masks in drawn for key, mask in masks.items()},
            )


def _shares(mask: np.ndarray, side: int) -> torch.Tensor:
    """Fraction of each latent cell that is defective: bool (S, S) → float32 (1, side, side)."""
    import torch

    cells = mask.reshape(side, len(mask) // side, side, -1)
    return torch.from_numpy(cells.mean((1, 3), dtype=np.float32))[None]


def _check_room(cache: LatentCache, values: int, dtype: str) -> None:
    cache.path.mkdir(parents=True, exist_ok=True)
    needed = values * BYTES[dtype] + SPARE_BYTES
    free = shutil.disk_usage(cache.path).free
    if free < needed:
        raise CacheError(
            f"latent cache {cache.path} needs {needed / 2**20:.0f} MiB but the disk has "
            f"{free / 2**20:.0f} MiB left; free some, or lower latent_cache.views"
        )
