"""Whether an ONNX export computes what the model does."""

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

# Float32 sums in another order differ by some 1e-6; a map of 16 bits has steps of 1.5e-5.
TOLERANCE = 1e-4
SEED = 0
BATCH = 3  # neither 1 nor the 2 that the export is traced with
RANDOM_IMAGES = 4


def check_tolerance(tolerance: float) -> None:
    """Refuse a tolerance that says nothing.

    Raises:
        ConfigurationError: It does not lie between 0 and 1.
    """
    if not 0 < tolerance < 1:
        raise ConfigurationError(f"the tolerance is {tolerance}; it must lie between 0 and 1")


def parity(
    pipeline: DeCoDiffPipeline, folder: Path, images: Sequence[Image.Image], tolerance: float
) -> dict[str, Any]:
    """Compare torch with ONNX Runtime; the pipeline computes with the latter afterwards.

    Args:
        pipeline: The model, computing with torch.
        folder: The exported parts.
        images: What scores and maps are compared on, "L" or "RGB"; random ones without.
        tolerance: Largest absolute difference allowed; where values exceed 1, as a share of the
            largest.

    Returns:
        ``tolerance``, ``images`` (how many, 0 for random ones) and ``differences`` by quantity.

    Raises:
        ModelError: A difference is larger, or not a number.
    """
    expected = _computed(pipeline, images)
    attach(pipeline, folder)
    found = _computed(pipeline, images)
    differences = {name: _difference(found[name], expected[name]) for name in expected}
    worst = max(differences, key=lambda name: differences[name])
    if not differences[worst] <= tolerance:
        raise ModelError(
            f"ONNX Runtime and torch differ by {differences[worst]:.2g} in the {worst}, more than "
            f"the tolerance {tolerance:g}; nothing was written: use the backend torch, or other "
            "versions of onnxruntime and onnxscript"
        )
    return {"tolerance": tolerance, "images": len(images), "differences": differences}


@torch.no_grad()
def _computed(
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
    """Coarse random textures: pure noise is nothing that an autoencoder knows."""
    random = np.random.default_rng(SEED)
    coarse = random.integers(0, 256, (RANDOM_IMAGES, 9, 9, 3), np.uint8)
    return [Image.fromarray(image).resize((side, side)) for image in coarse]


def _difference(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """NaN where either holds one, and then it is the worst that `max` has to find."""
    shares = [
        np.abs(one - other).max() / max(1.0, np.abs(other).max())
        for one, other in zip(found, expected, strict=True)
    ]
    worst = float(np.max(shares))
    return worst if np.isfinite(worst) else float("inf")
