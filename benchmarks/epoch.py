"""A whole epoch with an autoencoder of Stable Diffusion's size, from pixels to weights.

The released loop encodes every image again in every epoch; ours trains from a cache, whose making
is spread over 20 epochs.
"""

from __future__ import annotations

import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.inference import autoencoder
from benchmarks.latent_caching import GEOMETRY, make_images, table
from benchmarks.timing import Worker
from benchmarks.training_step import BATCH, PEER, our_step, released_step
from decodiff_pipeline.data.caching import LatentCacheConfig, fill_cache, wanted_latents
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.latent_cache import LatentCache
from decodiff_pipeline.deco.autoencoder import encode
from decodiff_pipeline.deco.preprocess import to_square, to_tensor
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.training.batches import LatentBatches

if TYPE_CHECKING:
    from collections.abc import Callable

EPOCHS = 20
ROUNDS = 5
CONFIG = LatentCacheConfig(views=1, synthetic_defects=0, bfloat16=True, batch_size=BATCH)


def run() -> list[dict[str, Any]]:
    """XS, 16 images of 300² at 256²: one batch."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / "raw", BATCH)
        autoencoder("_sd_vae").save_pretrained(folder / "vae")
        with (
            Worker(partial(fill, folder)) as caching,
            Worker(partial(our_epoch, folder)) as ours,
            Worker(partial(released_epoch, folder)) as peer,
        ):
            workers = (caching, ours, peer)
            for worker in workers:
                worker.call()
            turns = [[worker.call() for worker in workers] for _ in range(ROUNDS)]
    making, training, released = (
        statistics.median(seconds) for seconds in zip(*turns, strict=True)
    )
    speed, other = BATCH / (making / EPOCHS + training), BATCH / released
    return [
        {
            "name": "epoch_sd_vae",
            "ours": round(speed, 3),
            "peer": round(other, 3),
            "peer_name": f"{PEER}; every image encoded in float32 at every step",
            "unit": "images/s",
            "ratio": round(speed / other, 3),
            "caching_seconds_per_image": round(making / BATCH, 3),
        }
    ]


def fill(folder: Path) -> Callable[[], None]:
    """Encode all images into a new cache."""
    images = ImageFolder(folder / "raw")

    def make() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            _fill(LatentCache(Path(name)), folder, images)

    return make


def our_epoch(folder: Path) -> Callable[[], None]:
    """Read all latents from a cache and train on them."""
    cache, manifest = LatentCache(folder / "cache"), table(BATCH)
    _fill(cache, folder, ImageFolder(folder / "raw"))
    wanted = wanted_latents(manifest, "train", GEOMETRY, _source(folder), CONFIG)
    batches = LatentBatches(
        cache.reader([latent.key for latent in wanted]),
        [0] * BATCH,
        views=1,
        batch_size=BATCH,
        seed=0,
    )
    step = our_step(32, bfloat16=True)

    def epoch() -> None:
        batches.batch(0)
        step()

    return epoch


def released_epoch(folder: Path) -> Callable[[], None]:
    """Read and encode all images and train on them."""
    images, model = ImageFolder(folder / "raw"), autoencoder("_sd_vae")
    step = released_step(32)

    def epoch() -> None:
        paths = table(BATCH)["path"]
        encode(model, to_tensor([to_square(images.read(path), GEOMETRY) for path in paths]))
        step()

    return epoch


def _fill(cache: LatentCache, folder: Path, images: ImageFolder) -> None:
    fill_cache(
        cache, manifest=table(BATCH), images=images, geometry=GEOMETRY,
        autoencoder=_source(folder), config=CONFIG,
    )  # fmt: skip


def _source(folder: Path) -> AutoencoderConfig:
    return AutoencoderConfig(source=str(folder / "vae"))
