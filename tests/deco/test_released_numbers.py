"""A handful of the released code's numbers, and its formulas rebuilt plainly."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from benchmarks.released_network import ReleasedUNet

from decodiff_pipeline.deco.config import DiscrepancyConfig
from decodiff_pipeline.deco.convert import convert
from decodiff_pipeline.deco.discrepancy import anomaly_maps, smoothed
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.deco.unet import DeCoDiffUNet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ALPHA_BAR = (
    (0, 0.97209273711396904),
    (3, 0.64747821114650395),
    (6, 0.20312147411833761),
    (9, 2.4091724140085884e-05),
)
# t, z, noise, z_t, δ at corrupted positions of the released forward process
FORWARD = (
    (0, 0.104900114, -0.20111172, 0.06982937, -0.20993574),
    (4, -1.9647671, -0.34531718, -1.6263953, 0.47561085),
    (4, 1.0909642, -0.8817146, 0.13937134, -1.3375462),
    (9, 1.1740304, -0.21019869, -0.20443362, -1.3784806),
)
# Channel 0, row 7, columns 3 and 20 of four images, of a network with 32 channels
TIMESTEPS, CATEGORIES = [0, 3, 6, 9], [0, 1, 3, 4]
NETWORK_OUTPUT = (
    (-0.43118945, 0.641845),
    (-0.02864964, -1.2503183),
    (-0.25744322, -1.0296991),
    (-0.33533648, 0.3975617),
)
CORRECTED_IN_5_STEPS = (
    (0.95260465, -0.03810599),
    (1.9592903, 1.9239469),
    (-0.02897489, 1.9169083),
    (-0.20341143, -0.14700443),
)


@pytest.fixture(scope="module")
def converted(
    known_weights: Callable[..., dict[str, torch.Tensor]],
    save_released: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> DeCoDiffUNet:
    folder = tmp_path_factory.mktemp("released")
    shapes = {name: w.shape for name, w in ReleasedUNet(5, 32, 2, 32).state_dict().items()}
    file = save_released(folder / "last.pt", known_weights(shapes))
    convert(file, folder / "out", categories=list("abcde"), num_heads=2)
    return DeCoDiffUNet.from_pretrained(folder / "out" / "unet")


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    """The latents that the records were made with, float32 (4, 4, 32, 32)."""
    values = np.random.default_rng(0).standard_normal(33686 + 4 * 4 * 32 * 32)[33686:]
    return torch.from_numpy(0.8 * values).float().reshape(4, 4, 32, 32)


def test_the_schedule_has_the_released_values() -> None:
    scheduler = DeCoDiffScheduler()
    for t, expected in ALPHA_BAR:
        assert float(scheduler.alphas_cumprod[t]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("t", "original", "noise", "corrupted", "deviation"), FORWARD)
def test_the_forward_process_has_the_released_values(
    t: int, original: float, noise: float, corrupted: float, deviation: float
) -> None:
    scheduler, steps = DeCoDiffScheduler(), torch.tensor([t])
    z, eta = (torch.full((1, 1, 1, 1), value) for value in (original, noise))
    delta = scheduler.deviation(z, eta, torch.zeros(1, 1, 1, 1), steps)
    assert delta.item() == pytest.approx(deviation, abs=1e-6)
    z_t = scheduler.add_deviation(z, delta, steps)
    assert z_t.item() == pytest.approx(corrupted, abs=1e-6)


@torch.no_grad()
def test_a_converted_network_gives_the_released_output(
    converted: DeCoDiffUNet, latents: torch.Tensor
) -> None:
    found = converted(latents, torch.tensor(TIMESTEPS), torch.tensor(CATEGORIES))
    np.testing.assert_allclose(found[:, 0, 7, [3, 20]], NETWORK_OUTPUT, rtol=0, atol=1e-5)


@torch.no_grad()
def test_five_reverse_steps_give_the_released_latents(
    converted: DeCoDiffUNet, latents: torch.Tensor
) -> None:
    scheduler, sample = DeCoDiffScheduler(), latents
    scheduler.set_timesteps(5)
    for t in scheduler.timesteps:
        deviation = converted(sample, t, torch.tensor(CATEGORIES))
        sample = scheduler.step(deviation, t, sample).prev_sample
    np.testing.assert_allclose(sample[:, 0, 7, [3, 20]], CORRECTED_IN_5_STEPS, rtol=0, atol=1e-5)


def test_the_reverse_step_is_the_paper_s() -> None:
    alpha_bar = [math.cos((t / 10 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(11)]
    noise_scale = [math.sqrt(1 - alpha_bar[t + 1] / alpha_bar[0]) for t in range(10)]
    z, delta = 0.7, -1.3
    scheduler = DeCoDiffScheduler()
    scheduler.set_timesteps(timesteps=[6, 2])
    sample = torch.tensor([[[[z]]]], dtype=torch.float64)
    deviation = torch.full_like(sample, delta)
    sample = scheduler.step(deviation, 6, sample).prev_sample
    clean = z - noise_scale[6] * delta
    assert sample.item() == pytest.approx(clean + noise_scale[2] * delta, abs=1e-12)
    last = scheduler.step(deviation, 2, sample).prev_sample
    assert last.item() == pytest.approx(clean, abs=1e-12)


def plain_gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    """Along the rows and the columns of (H, W), cut off at 4 sigma, edges repeated in reverse."""
    radius = round(4 * sigma)
    kernel = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        padding = [(radius, radius) if i == axis else (0, 0) for i in (0, 1)]
        padded = np.pad(image, padding, mode="symmetric")
        image = np.apply_along_axis(np.convolve, axis, padded, kernel, "valid")
    return image


def plain_enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    """Bilinear between pixel centres, mirrored at the outermost centres."""
    for axis in (0, 1):
        length = image.shape[axis]
        place = (np.arange(length * factor) + 0.5) / factor - 0.5
        low = np.floor(place).astype(int)
        share = (place - low).reshape((-1, 1) if axis == 0 else (1, -1))
        mirror = [*range(length), length - 2, 1]  # the last two stand for `length` and for -1
        lower = np.take(image, [mirror[i] for i in low], axis)
        upper = np.take(image, [mirror[i + 1] for i in low], axis)
        image = (1 - share) * lower + share * upper
    return image


def test_the_maps_are_the_paper_s() -> None:
    random = np.random.default_rng(0)
    pixel = random.random((2, 64, 64)).astype(np.float32)
    latent = 0.4 * random.random((2, 8, 8)).astype(np.float32)
    config = DiscrepancyConfig()
    found = anomaly_maps(
        *smoothed(torch.from_numpy(pixel), torch.from_numpy(latent), config), config
    )
    for image, small, large in zip(found, latent, pixel, strict=True):
        of_pixels = plain_gaussian(np.clip(large, 0, 0.4) * 2.5, 3)
        of_latents = plain_enlarged(plain_gaussian(np.clip(small, 0, 0.2) * 5, 1), 8)
        np.testing.assert_allclose(image, np.sqrt(of_pixels * of_latents), rtol=0, atol=1e-5)
