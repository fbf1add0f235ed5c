"""The scoring loop: runs a model over images in full batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from decodiff_pipeline.deco.device import keep_freed_memory
from decodiff_pipeline.deco.geometry import squares
from decodiff_pipeline.deco.preprocess import to_tensor
from decodiff_pipeline.deco.regions import fill
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from PIL import Image

    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.deco.regions import Region

BATCH_PIXELS = 50_000_000  # maximum pixels of originals that a batch keeps in memory
NO_NUMBER = (
    "the model gives NaN or infinity for {}; its weights are damaged or the training diverged: "
    "train again, with a lower training.learning_rate"
)


@dataclass(frozen=True)
class ModelInput:
    """A preprocessed image."""

    path: str  # for messages
    category: str  # one that the model knows
    size: tuple[int, int]  # width and height of the original in pixels
    squares: list[np.ndarray]  # uint8 (S, S, 3) each, see `deco.geometry.squares`
    about: Any = None  # data of the caller, returned with the prediction
    kept_pixels: int = 0  # pixels of the original, if ``about`` holds it


@dataclass(frozen=True)
class Prediction:
    """The model's output for an image."""

    image: ModelInput
    anomaly_map: np.ndarray  # float32 (h, w), finite
    score: np.float32  # finite
    reconstruction: np.ndarray  # uint8 (h, w, 3)


def model_input(
    image: Image.Image,
    path: str,
    category: str,
    geometry: PreprocessConfig,
    region: Region | None = None,
) -> ModelInput:
    """Resize an image for the model.

    Args:
        region: Of the category, where the model's call, which fills what is outside, is not used.

    Raises:
        ImageError: It is too long and narrow.
    """
    found = squares(image, geometry)
    if region is not None and region.filled:
        inside = region.in_squares(image.size, geometry)
        found = [fill(*parts) for parts in zip(found, inside, strict=True)]
    return ModelInput(path, category, image.size, found)


def progress(total: int, name: str) -> tqdm:
    """A progress bar with images per second and the time left."""
    return tqdm(total=total, desc=name, unit="image")


def predict(
    model: DeCoDiffPipeline,
    images: Iterable[ModelInput],
    bar: tqdm,
    *,
    batch_size: int,
    steps: int | None = None,
) -> Iterator[list[Prediction]]:
    """Run a model over images; batches mix categories.

    Args:
        images: Consumed as needed; see `data.read_ahead`.
        bar: Advanced by the number of finished images.
        steps: Reverse steps; ``None`` for the model's own.

    Yields:
        The predictions of a batch, in the order of the images.

    Raises:
        ModelError: The model returns a map or score that is not finite.
    """
    keep_freed_memory()
    model.set_progress_bar_config(disable=True)
    for batch in batches(images, batch_size):
        output = model(
            to_tensor([square for image in batch for square in image.squares]),
            [image.category for image in batch],
            num_inference_steps=steps,
            batch_size=batch_size,
            sizes=[image.size for image in batch],
        )
        results = output.anomaly_maps, output.scores, output.reconstructions
        found = [Prediction(*parts) for parts in zip(batch, *results, strict=True)]
        _require_finite(found)
        bar.update(len(found))
        yield found


class Measured(NamedTuple):
    """Discrepancies of the M squares of a batch of images."""

    images: list[ModelInput]
    pixel: np.ndarray  # float32 (M, H, W), finite
    latent: np.ndarray  # float32 (M, h, w), finite


def measure_discrepancies(
    model: DeCoDiffPipeline, images: Iterable[ModelInput], bar: tqdm, *, batch_size: int
) -> Iterator[Measured]:
    """Run a model over images, as `predict` does, but return the discrepancies instead of maps.

    Raises:
        ModelError: The model returns a discrepancy that is not finite.
    """
    keep_freed_memory()
    for batch in batches(images, batch_size):
        squares = to_tensor([square for image in batch for square in image.squares])
        ids = model.unet.category_ids([one.category for one in batch for _ in one.squares])
        found = [
            model.discrepancies(*parts)
            for parts in zip(squares.split(batch_size), ids.split(batch_size), strict=True)
        ]
        pixel = torch.cat([part.pixel for part in found]).cpu().numpy()
        latent = torch.cat([part.latent for part in found]).cpu().numpy()
        if not (np.isfinite(pixel).all() and np.isfinite(latent).all()):
            raise ModelError(NO_NUMBER.format(batch[0].path))
        bar.update(len(batch))
        yield Measured(batch, pixel, latent)


def batches(images: Iterable[ModelInput], size: int) -> Iterator[list[ModelInput]]:
    """Group images into batches of ``size``, or smaller ones if their originals are large."""
    batch: list[ModelInput] = []
    for image in images:
        batch.append(image)
        if len(batch) == size or sum(one.kept_pixels for one in batch) >= BATCH_PIXELS:
            yield batch
            batch = []
    if batch:
        yield batch


def _require_finite(found: Iterable[Prediction]) -> None:
    for one in found:
        if not (np.isfinite(one.score) and np.isfinite(one.anomaly_map).all()):
            raise ModelError(NO_NUMBER.format(one.image.path))
