"""Caches the discrepancies of the test images on disk, for several scorings of one pass."""

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
    """The discrepancies of N images with M squares."""

    rows: pd.DataFrame  # manifest rows, sorted by category
    sizes: list[tuple[int, int]]  # width and height of each image in pixels
    starts: np.ndarray  # int64 (N + 1,): index of the first square of each image, and M
    pixel: np.ndarray  # pixel discrepancies of all squares, float32 (M, H, W), memory-mapped
    latent: np.ndarray  # latent discrepancies, float32 (M, h, w), memory-mapped


def cache_discrepancies(
    model: DeCoDiffPipeline, rows: pd.DataFrame, images: ImageFolder, folder: Path, batch_size: int
) -> CachedDiscrepancies:
    """Compute the discrepancies of images, in constant memory.

    Args:
        model: Its scoring is not used.
        rows: Manifest rows of categories of the model, sorted by category.

    Raises:
        ImageError: An image cannot be read.
        ModelError: The model's output is NaN or infinite.
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
            # Not through a memory map, which would crash the process on a full disk.
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
    """Compute scores and metrics from cached discrepancies.

    Args:
        model: Its limits, normalisation, fusion and image score are used.
        cached: From a model with the same network and reverse steps.
        folder: Temporary folder for the maps.

    Returns:
        ``mean`` and ``categories`` with the keys of :data:`METRICS`; for categories also `COUNTS`.
    """
    store = PredictionStore(folder / "predictions")
    about = {"preprocessing": model.preprocessing.facts(), "regions": model.config.get("regions")}
    rows = labelled_inside(cached.rows, images, model.regions)
    store.write(about, rows, _predictions(model, cached, config.batch_size))
    evaluated = plain_metrics(store, images, config)
    return {
        "mean": {name: evaluated["mean"][name] for name in METRICS},
        "categories": {
            category: {name: metrics.get(name) for name in (*METRICS, *COUNTS)}
            for category, metrics in evaluated["categories"].items()
        },
    }


def _predictions(
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
