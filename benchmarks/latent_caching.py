"""Encoding images into the cache, against encoding them one by one in float32."""

from __future__ import annotations

import tempfile
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.timing import side_by_side
from decodiff_pipeline.data.caching import LatentCacheConfig, fill_cache
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.latent_cache import LatentCache
from decodiff_pipeline.deco.autoencoder import encode, load_autoencoder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.preprocess import to_square, to_tensor
from decodiff_pipeline.deco.weights import AutoencoderConfig

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES = 64
GEOMETRY = PreprocessConfig(resize=256, image_size=256)
CONFIG = LatentCacheConfig(views=1, bfloat16=True, batch_size=16)


def run() -> list[dict[str, Any]]:
    """64 images of 300² at 256², with the embedded autoencoder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / "raw", IMAGES)
        return [
            side_by_side(
                "latent_caching_256",
                partial(cached, folder),
                partial(one_by_one, folder),
                peer_name="the same autoencoder image by image in float32",
                images=IMAGES,
            )
        ]


def cached(folder: Path) -> Callable[[], None]:
    """Fill a new cache at every call."""
    manifest, images, caches = table(IMAGES), ImageFolder(folder / "raw"), count()

    def fill() -> None:
        fill_cache(
            LatentCache(folder / f"cache{next(caches)}"), manifest=manifest, images=images,
            geometry=GEOMETRY, autoencoder=AutoencoderConfig(), config=CONFIG,
        )  # fmt: skip

    return fill


def one_by_one(folder: Path) -> Callable[[], None]:
    """Encode every image by itself and save all latents."""
    images, model = ImageFolder(folder / "raw"), load_autoencoder(AutoencoderConfig())

    def encode_all() -> None:
        latents = [
            encode(model, to_tensor([to_square(images.read(path), GEOMETRY)]))[0]
            for path in table(IMAGES)["path"]
        ]
        torch.save(latents, folder / "latents.pt")

    return encode_all


def make_images(folder: Path, number: int) -> None:
    """Write grey pictures of 300², 0.png and so on."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in table(number)["path"]:
        coarse = Image.fromarray(random.integers(0, 256, (30, 30), np.uint8))
        coarse.resize((300, 300), Image.Resampling.BICUBIC).save(folder / name)


def table(number: int) -> pd.DataFrame:
    """The manifest of such pictures: good train images of one category."""
    names = [f"{index}.png" for index in range(number)]
    return pd.DataFrame(
        {"category": "a", "split": "train", "label": "good", "path": names, "sha256": names}
    )
