"""Discrepancies of the test images on disk, so that many ways of scoring share one pass."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from decodiff_pipeline.data.read_ahead import read_ahead
from decodiff_pipeline.evaluation.assessment import plain_metrics
from decodiff_pipeline.evaluation.predict import (
    ModelInput,
    measure_discrepancies,
    model_input,
    progress,
)
from decodiff_pipeline.evaluation.predictions import Found, PredictionStore
from decodiff_pipeline.evaluation.protocols import labelled_inside
from decodiff_pipeline.metrics.summary import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.evaluation.config import EvaluationConfig

COUNTS = ("n_good", "n_defective", "n_masks")


@dataclass(frozen=True)
class CachedDiscrepancies:
    """What a model's forward pass found in some images, before anything is made of it."""

    rows: pd.DataFrame  # the images' manifest rows, categories together
    sizes: list[tuple[int, int]]  # width and height of each image in pixels
    starts: np.ndarray  # int64 (N + 1,): the first square of each image, and how many there are
    pixel: np.ndarray  # pixel discrepancies of all squares, float32 (M, H, W), memory-mapped
    latent: np.ndarray  # latent discrepancies, float32 (M, h, w), memory-mapped


def cache_discrepancies(
    model: DeCoDiffPipeline, rows: pd.DataFrame, images: ImageFolder, folder: Path, batch_size: int
) -> CachedDiscrepancies:
    """Run a model over images, in constant memory.

    Args:
        model: Autoencoder and network; its scoring is not looked at.
        rows: Manifest rows of the images, of categories the model knows, categories together.
        folder: Where the discrepancies go.

    Raises:
        ImageError: An image cannot be read.
        ModelError: The model's output is no number.
    """
    geometry, regions = model.preprocessing, model.regions

    def read(row: Any) -> ModelInput:
        region = regions.get(row.category)
        return model_input(images.read(row.path), row.path, row.category, geometry, region)

    sizes: list[tuple[int, int]] = []
    counts, shapes = [0], {}
    files = {name: folder / f"{name}.float32" for name in ("pixel", "latent")}
    with (
        files["pixel"].open("wb") as pixel,
        files["latent"].open("wb") as latent,
        progress(len(rows), "scoring") as bar,
        closing(read_ahead(read, rows.itertuples())) as inputs,
    ):
        for found in measure_discrepancies(model, inputs, bar, batch_size=batch_size):
            sizes += [image.size for image in found.images]
            counts += [len(image.squares) for image in found.images]
            shapes = {"pixel": found.pixel.shape[1:], "latent": found.latent.shape[1:]}
            # Plain writes: a full disk is an error then, where a memory map is a crash.
            pixel.write(np.ascontiguousarray(found.pixel, "<f4").data)
            latent.write(np.ascontiguousarray(found.latent, "<f4").data)
    loaded = (
        np.memmap(files[name], "<f4", mode="r").reshape(-1, *shape)
        for name, shape in shapes.items()
    )
    return CachedDiscrepancies(rows, sizes, np.cumsum(counts), *loaded)


def measure_from_cache(
    model: DeCoDiffPipeline,
    cached: CachedDiscrepancies,
    images: ImageFolder,
    folder: Path,
    config: EvaluationConfig,
) -> dict[str, Any]:
    """Score cached discrepancies as a model would have scored the images, and judge the scores.

    Args:
        model: Whose limits, reference, fusion and image score are used.
        cached: From a model with the same network and reverse steps.
        folder: Where the maps are while they are judged.

    Returns:
        ``mean`` and ``categories``, with the keys of :data:`METRICS`; categories also count their
        images.
    """
    store = PredictionStore(folder / "predictions")
    found = _found(model, cached, config.batch_size)
    about = {"preprocessing": model.preprocessing.facts(), "regions": model.config.get("regions")}
    store.write(about, labelled_inside(cached.rows, images, model.regions), found)
    judged = plain_metrics(store, images, config)
    return {
        "mean": {name: judged["mean"][name] for name in METRICS},
        "categories": {
            category: {name: metrics.get(name) for name in (*METRICS, *COUNTS)}
            for category, metrics in judged["categories"].items()
        },
    }


def _found(
    model: DeCoDiffPipeline, cached: CachedDiscrepancies, batch_size: int
) -> Iterator[Found]:
    ids = model.unet.category_ids(list(cached.rows["category"]))
    for start in range(0, len(cached.rows), batch_size):
        batch = slice(start, start + batch_size)
        sizes = cached.sizes[batch]
        squares = slice(cached.starts[start], cached.starts[start + len(sizes)])
        maps, scores = model.maps_and_scores(
            torch.from_numpy(np.array(cached.pixel[squares])),
            torch.from_numpy(np.array(cached.latent[squares])),
            ids[batch],
            sizes,
        )
        for anomaly_map, score in zip(maps, scores, strict=True):
            yield anomaly_map, score, np.broadcast_to(np.uint8(0), (*anomaly_map.shape, 3))
