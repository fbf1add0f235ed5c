"""Encoding images into the cache, against encoding them one by one in float32."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

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

IMAGES = 64
GEOMETRY = PreprocessConfig(resize=256, image_size=256)
CONFIG = LatentCacheConfig(views=1, bfloat16=True, batch_size=16)


def run() -> list[dict[str, Any]]:
    """64 images of 300² at 256², with the embedded autoencoder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = _images(folder / "raw")
        images, embedded = ImageFolder(folder / "raw"), AutoencoderConfig()
        model = load_autoencoder(embedded)
        caches = iter(range(100))

        def ours() -> None:
            fill_cache(
                LatentCache(folder / f"cache{next(caches)}"), manifest=manifest, images=images,
                geometry=GEOMETRY, autoencoder=embedded, config=CONFIG,
            )  # fmt: skip

        def peer() -> None:
            latents = [
                encode(model, to_tensor([to_square(images.read(path), GEOMETRY)]))[0]
                for path in manifest["path"]
            ]
            torch.save(latents, folder / "latents.pt")

        return [
            side_by_side(
                "latent_caching_256",
                ours,
                peer,
                peer_name="the same autoencoder image by image in float32",
                images=IMAGES,
            )
        ]


def _images(folder: Path) -> pd.DataFrame:
    folder.mkdir()
    random = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(IMAGES)]
    for name in names:
        coarse = Image.fromarray(random.integers(0, 256, (30, 30), np.uint8))
        coarse.resize((300, 300), Image.Resampling.BICUBIC).save(folder / name)
    return pd.DataFrame(
        {"category": "a", "split": "train", "label": "good", "path": names, "sha256": names}
    )
