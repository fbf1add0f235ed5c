"""Numerical parity of an ONNX export with the torch model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from decodiff_pipeline.deco.autoencoder import decode, encode
from decodiff_pipeline.errors import ConfigurationError, ModelError
from decodiff_pipeline.export.onnx_model import attach

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline

# Float32 sums in another order differ by about 1e-6; a 16-bit map has steps of 1.5e-5.
TOLERANCE = 1e-4
SEED = 0
BATCH = 3  # not 1, and not the batch size 2 of the export
RANDOM_IMAGES = 4


def check_tolerance(tolerance: float) -> None:
    """Check the range of a tolerance.

    Raises:
        ConfigurationError: It is not between 0 and 1.
    """
    if not 0 < tolerance < 1:
        raise ConfigurationError(f"the tolerance is {tolerance}; it must lie between 0 and 1")


def parity(
    pipeline: DeCoDiffPipeline, folder: Path, images: Sequence[Image.Image], tolerance: float
) -> dict[str, Any]:
    """Compare torch with ONNX Runtime; the pipeline uses ONNX Runtime afterwards.

    Args:
        pipeline: The model, computing with torch.
        folder: The exported parts.
        images: "L" or "RGB" images on which scores and maps are compared; random ones if empty.
        tolerance: Largest difference, relative to max(1, largest absolute value).

    Returns:
        ``tolerance``, ``images`` (number of images, 0 for random ones) and ``differences`` by
        quantity.

    Raises:
        ModelError: A difference exceeds the tolerance or is NaN.
    """
    expected = _outputs(pipeline, images)
    attach(pipeline, folder)
    actual = _outputs(pipeline, images)
    differences = {name: _difference(actual[name], expected[name]) for name in expected}
    worst = max(differences, key=lambda name: differences[name])
    if not differences[worst] <= tolerance:
        raise ModelError(
            f"ONNX Runtime and torch differ by {differences[worst]:.2g} in the {worst}, more than "
            f"the tolerance {tolerance:g}; nothing was written: use the backend torch, or other "
            "versions of onnxruntime and onnxscript"
        )
    return {"tolerance": tolerance, "images": len(images), "differences": differences}


@torch.no_grad()
def _outputs(
    pipeline: DeCoDiffPipeline, images: Sequence[Image.Image]
) -> dict[str, list[np.ndarray]]:
    unet, random = pipeline.unet, torch.Generator().manual_seed(SEED)
    side, categories = pipeline.image_size, pipeline.categories
    noise = torch.randn(
        BATCH, unet.config.in_channels, *[unet.config.sample_size] * 2, generator=random
    )
    pixels = torch.rand(BATCH, 3, side, side, generator=random) * 2 - 1
    ids = torch.arange(BATCH) % len(categories)
    latents, _ = encode(pipeline.vae, pixels)
    squares = list(images) or _random_images(side)
    names = [categories[number % len(categories)] for number in range(len(squares))]
    output = pipeline(squares, names, batch_size=BATCH)
    times = range(pipeline.scheduler.config.num_train_timesteps)
    return {
        "deviation": [unet(noise, time, ids).numpy() for time in times],
        "latents": [latents.numpy()],
        "reconstruction": [decode(pipeline.vae, latents).numpy()],
        "maps": list(output.anomaly_maps),
        "scores": [output.scores],
    }


def _random_images(side: int) -> list[Image.Image]:
    """Coarse random textures, because an autoencoder does not reproduce white noise."""
    random = np.random.default_rng(SEED)
    coarse = random.integers(0, 256, (RANDOM_IMAGES, 9, 9, 3), np.uint8)
    return [Image.fromarray(image).resize((side, side)) for image in coarse]


def _difference(actual: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Largest relative difference; infinity if a value is NaN."""
    differences = [
        np.abs(array - other).max() / max(1.0, np.abs(other).max())
        for array, other in zip(actual, expected, strict=True)
    ]
    largest = float(np.max(differences))
    return largest if np.isfinite(largest) else float("inf")
