"""Discrepancies of the test images on disk, so that many ways of scoring share one pass."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.evaluation.assessment import assess
from decodiff_pipeline.evaluation.predictions import PredictionStore
from decodiff_pipeline.evaluation.summary import METRICS

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.evaluation.config import EvaluationConfig

COUNTS = ("n_good", "n_defective", "n_masks")


@dataclass(frozen=True)
class Recording:
    """What a model's forward pass found in some images, before anything is made of it.

    Attributes:
        rows: The images' manifest rows, categories together.
        pixel: Pixel discrepancies, float32 (N, H, W), memory-mapped.
        latent: Latent discrepancies, float32 (N, h, w), memory-mapped.
    """

    rows: pd.DataFrame
    pixel: np.ndarray
    latent: np.ndarray


def record(
    model: DeCoDiffPipeline, rows: pd.DataFrame, images: ImageFolder, folder: Path, batch_size: int
) -> Recording:
    """Run a model over images, in constant memory.

    Args:
        model: Autoencoder and network; its scoring is not looked at.
        rows: Manifest rows of the images, of categories the model knows, categories together.
        images: The raw images.
        folder: Where the discrepancies go.
        batch_size: Images at once.

    Raises:
        ImageError: An image cannot be read.
        ModelError: The model's output is no number.
    """
    numbers = {category: number for number, category in enumerate(model.categories)}
    paths = {name: folder / f"{name}.npy" for name in ("pixel", "latent")}
    with paths["pixel"].open("wb") as pixel, paths["latent"].open("wb") as latent:
        for start in tqdm(range(0, len(rows), batch_size), desc="scoring", unit="batches"):
            batch = rows.iloc[start : start + batch_size]
            tensor = model.preprocess([images.read(path) for path in batch["path"]])
            found = model.discrepancies(
                tensor, torch.tensor([numbers[name] for name in batch["category"]])
            )
            if not (np.isfinite(found.pixel).all() and np.isfinite(found.latent).all()):
                msg = (
                    f"the model gives NaN or infinity near {batch['path'].iloc[0]}; lower "
                    "training.learning_rate for this variant"
                )
                raise ModelError(msg)
            _append(pixel, found.pixel, len(rows), first=start == 0)
            _append(latent, found.latent, len(rows), first=start == 0)
    loaded = (np.load(paths[name], mmap_mode="r") for name in ("pixel", "latent"))
    return Recording(rows, *loaded)


def measure(
    model: DeCoDiffPipeline,
    recording: Recording,
    images: ImageFolder,
    folder: Path,
    config: EvaluationConfig,
) -> dict[str, Any]:
    """Score a recording as a model would have scored the images, and judge the scores.

    Args:
        model: Whose limits, reference, fusion and image score are used.
        recording: From a model with the same network and reverse steps.
        images: The raw images, for the masks.
        folder: Where the maps are while they are judged.
        config: Protocol, limit of AUPRO and batch size.

    Returns:
        ``mean`` and ``categories``, with the keys of :data:`METRICS`; categories also count their
        images.
    """
    store = PredictionStore(folder / "predictions")
    places = recording.rows.assign(place=range(len(recording.rows)))
    with store.writing({"preprocessing": asdict(model.preprocessing)}) as writer:
        for number, category in enumerate(model.categories):
            own = places[places["category"] == category]
            with writer.category(category, len(own), model.image_size) as file:
                for start in range(0, len(own), config.batch_size):
                    batch = own.iloc[start : start + config.batch_size]
                    chosen = batch["place"].to_numpy()
                    maps, scores = model.maps_and_scores(
                        recording.pixel[chosen],
                        recording.latent[chosen],
                        torch.full([len(batch)], number),
                    )
                    nothing = np.broadcast_to(np.uint8(0), (*maps.shape, 3))
                    file.append(batch, maps=maps, scores=scores, reconstructions=nothing)
    judged = assess(store, images, {"categories": {}}, {"protocol": config.protocol}, config)
    return {
        "mean": {name: judged["mean"][name] for name in METRICS},
        "categories": {
            category: {name: metrics.get(name) for name in (*METRICS, *COUNTS)}
            for category, metrics in judged["categories"].items()
        },
    }


def _append(file: BinaryIO, values: np.ndarray, total: int, *, first: bool) -> None:
    """Plain writes: a full disk is an error then, where a memory map is a crash."""
    values = np.ascontiguousarray(values, dtype="<f4")
    if first:
        header = {"descr": "<f4", "fortran_order": False, "shape": (total, *values.shape[1:])}
        np.lib.format.write_array_header_1_0(file, header)
    file.write(values.data)
