"""The schedule and both processes against the paper's formulas, written out plainly."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def plain_alpha_bar(steps: int = 10) -> np.ndarray:
    """ᾱ of the squared-cosine schedule by its definition, in float64."""
    f = [math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(steps + 1)]
    return np.cumprod([1 - min(1 - f[i + 1] / f[i], 0.999) for i in range(steps)])


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents, noise and a mask that keeps the left half."""
    random = torch.Generator().manual_seed(seed)
    latents, noise = torch.randn(2, 10, 4, 8, 8, generator=random)
    mask = torch.ones(10, 1, 8, 8)
    mask[..., 4:] = 0
    return latents, noise, mask


def test_schedule_is_squared_cosine_in_float64() -> None:
    assert DeCoDiffScheduler().alphas_cumprod.numpy() == pytest.approx(plain_alpha_bar(), abs=1e-12)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (2, [5, 0]),
        (3, [8, 4, 0]),
        (4, [9, 6, 3, 0]),
        (5, [8, 6, 4, 2, 0]),
        (10, [*range(9, -1, -1)]),
    ],
)
def test_reverse_steps_are_strides_of_the_schedule(number: int, expected: list[int]) -> None:
    scheduler = DeCoDiffScheduler()
    scheduler.set_timesteps(number)
    assert scheduler.timesteps.tolist() == expected


@pytest.mark.parametrize("number", [1, 6, 7, 8, 9, 11, 0])
def test_a_number_of_steps_without_a_stride_is_refused(number: int) -> None:
    with pytest.raises(ConfigurationError, match=r"\[2, 3, 4, 5, 10\]"):
        DeCoDiffScheduler().set_timesteps(number)


@pytest.mark.parametrize("timesteps", [[], [0, 5], [10, 0], [3, 3], [2, -1]])
def test_timesteps_must_decrease_within_the_schedule(timesteps: list[int]) -> None:
    with pytest.raises(ConfigurationError, match="decrease strictly"):
        DeCoDiffScheduler().set_timesteps(timesteps=timesteps)


def test_forward_process_keeps_and_corrupts_as_the_mask_says() -> None:
    latents, noise, mask = batch()
    scheduler, t = DeCoDiffScheduler(), torch.arange(10)
    deviation = scheduler.deviation(latents, noise, mask, t)
    corrupted = scheduler.add_deviation(latents, deviation, t)
    alpha_bar = torch.tensor(plain_alpha_bar(), dtype=torch.float32).reshape(-1, 1, 1, 1)
    plain = mask * latents + (1 - mask) * (
        alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise
    )
    assert torch.equal(corrupted[..., :4], latents[..., :4])
    torch.testing.assert_close(corrupted, plain, atol=1e-6, rtol=0)


@pytest.mark.parametrize("steps", [2, 3, 5, 10])
def test_a_perfect_prediction_restores_the_latent(steps: int) -> None:
    latents, noise, mask = batch()
    scheduler = DeCoDiffScheduler()
    scheduler.set_timesteps(steps)
    start = int(scheduler.timesteps[0])
    t = torch.full((10,), start)
    deviation = scheduler.deviation(latents, noise, mask, t)
    sample = scheduler.add_deviation(latents, deviation, t)
    for timestep in scheduler.timesteps:
        sample = scheduler.step(deviation, timestep, sample).prev_sample
    torch.testing.assert_close(sample, latents, atol=1e-5, rtol=0)


def test_a_step_outside_the_chosen_ones_is_refused() -> None:
    scheduler = DeCoDiffScheduler()
    scheduler.set_timesteps(2)
    zeros = torch.zeros(1, 4, 8, 8)
    with pytest.raises(ConfigurationError, match=r"timestep 7 .* \[5, 0\]"):
        scheduler.step(zeros, 7, zeros)


@pytest.mark.parametrize("steps", [2, 3, 4, 5, 10])
def test_a_carried_step_with_the_true_deviation_lands_on_the_forward_process(steps: int) -> None:
    latents, noise, _ = batch()
    scheduler = DeCoDiffScheduler(reverse_step="carried")
    scheduler.set_timesteps(steps)

    def forward(timestep: int) -> tuple[torch.Tensor, torch.Tensor]:
        a = plain_alpha_bar()[timestep]
        z_t = math.sqrt(a) * latents + math.sqrt(1 - a) * noise
        return z_t, (z_t - latents) / math.sqrt(1 - a)

    sample, _ = forward(int(scheduler.timesteps[0]))
    for timestep, following in itertools.pairwise([*scheduler.timesteps.tolist(), None]):
        z_t, deviation = forward(timestep)
        torch.testing.assert_close(sample, z_t, atol=1e-5, rtol=0)
        sample = scheduler.step(deviation, timestep, sample).prev_sample
        assert following is not None or torch.allclose(sample, latents, atol=1e-5)


def test_a_constant_step_leaves_the_forward_process() -> None:
    latents, noise, mask = batch()
    scheduler = DeCoDiffScheduler()
    scheduler.set_timesteps(5)
    here, there = (torch.full((10,), int(t)) for t in scheduler.timesteps[:2])
    deviation = scheduler.deviation(latents, noise, mask, here)
    sample = scheduler.add_deviation(latents, deviation, here)
    following = scheduler.deviation(latents, noise, mask, there)
    wanted = scheduler.add_deviation(latents, following, there)
    found = scheduler.step(deviation, int(here[0]), sample).prev_sample
    assert (found - wanted)[..., 4:].abs().max() > 0.1
    torch.testing.assert_close(found[..., :4], wanted[..., :4], atol=1e-6, rtol=0)


def test_an_unknown_reverse_step_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'linear'.*constant, carried"):
        DeCoDiffScheduler(reverse_step="linear")


def test_a_saved_schedule_keeps_its_reverse_step(tmp_path: Path) -> None:
    DeCoDiffScheduler(reverse_step="carried").save_pretrained(str(tmp_path))
    assert DeCoDiffScheduler.from_pretrained(str(tmp_path)).config.reverse_step == "carried"
