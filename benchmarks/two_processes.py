"""Caching and scoring in two processes of one thread each, against one process of one thread.

``ratio`` counts everything, the seconds that two processes take to start too; ``steady_ratio`` is
without these, as of many images.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.latent_caching import make_images, table
from decodiff_pipeline.compute.config import ComputeConfig
from decodiff_pipeline.data.caching import LatentCacheConfig, fill_cache
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.latent_cache import LatentCache
from decodiff_pipeline.deco.autoencoder import load_autoencoder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.deco.unet import build_unet
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.evaluation.predictions import PredictionStore
from decodiff_pipeline.evaluation.scoring import score_images

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES = 512
VIEWS = 4
FEW = 32  # a batch for each process: as good as the start alone
BATCH = 16
ROUNDS = 3
GEOMETRY = PreprocessConfig(resize=128, image_size=128)
PEER = "one process of one thread"


def run() -> list[dict[str, Any]]:
    """512 images of 300² at 128²: four views of each cached, and scored by nano."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / "raw", IMAGES)
        cache, score = cached(folder), scored(folder)
        return [
            compared("cache_2_processes", cache, IMAGES * VIEWS),
            compared("score_2_processes", score, IMAGES),
        ]


def compared(name: str, work: Callable[[int, int], float], items: int) -> dict[str, Any]:
    """The record of work that takes a number of images and of processes, in turns."""
    work(FEW, 1)
    turns = [(work(IMAGES, 2), work(IMAGES, 1), work(FEW, 2), work(FEW, 1)) for _ in range(ROUNDS)]
    two, one, few_two, few_one = (
        statistics.median(seconds) for seconds in zip(*turns, strict=True)
    )
    return {
        "name": name,
        "ours": round(items / two, 3),
        "peer": round(items / one, 3),
        "peer_name": PEER,
        "unit": "images/s",
        "ratio": round(one / two, 3),
        "steady_ratio": round((one - few_one) / (two - few_two), 3),
        "seconds_to_start": round(few_two - few_one / 2, 3),
        "seconds": round(two, 3),
    }


def cached(folder: Path) -> Callable[[int, int], float]:
    """Fills a new cache with the views of some images."""

    def work(images: int, processes: int) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            start = time.perf_counter()
            fill_cache(
                LatentCache(Path(name) / "cache"),
                manifest=table(images),
                images=ImageFolder(folder / "raw"),
                geometry=GEOMETRY,
                autoencoder=AutoencoderConfig(),
                config=LatentCacheConfig(views=VIEWS, batch_size=BATCH, synthetic_defects=0),
                compute=ComputeConfig(device="cpu", processes=processes, threads=1),
            )
            return time.perf_counter() - start

    return work


def scored(folder: Path) -> Callable[[int, int], float]:
    """Scores some images with an untrained network."""
    torch.manual_seed(0)
    model = DeCoDiffPipeline(
        load_autoencoder(AutoencoderConfig()),
        build_unet("nano", ["a"], 16, 4, dropout=0.0),
        DeCoDiffScheduler(),
        preprocess=GEOMETRY.facts(),
    ).for_inference()

    def work(images: int, processes: int) -> float:
        rows = table(images).assign(split="test", mask_path=None)
        compute = ComputeConfig(device="cpu", processes=processes, threads=1)
        config = EvaluationConfig(batch_size=BATCH)
        with tempfile.TemporaryDirectory(dir=folder) as name:
            store = PredictionStore(Path(name) / "predictions")
            start = time.perf_counter()
            score_images(model, rows, ImageFolder(folder / "raw"), store, config, compute)
            return time.perf_counter() - start

    return work
