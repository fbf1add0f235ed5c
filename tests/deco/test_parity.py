"""The released code's own numbers, where the folder that holds them is at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from decodiff_pipeline.deco.config import DiscrepancyConfig
from decodiff_pipeline.deco.convert import convert
from decodiff_pipeline.deco.discrepancy import (
    anomaly_maps,
    latent_discrepancy,
    pixel_discrepancy,
    smoothed,
)
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.deco.unet import DeCoDiffUNet
from decodiff_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

FIXTURE = Path(os.environ.get("DECODIFF_TEST_DATA", "absent")).parent / "parity" / "fixture.npz"
pytestmark = pytest.mark.skipif(
    not FIXTURE.is_file(), reason="DECODIFF_TEST_DATA names no folder beside parity/fixture.npz"
)
TOLERANCE = 1e-5  # of float32 results
STEPS = {"ddim5_start5": [8, 6, 4, 2, 0], "ddim10_start10": [*range(9, -1, -1)]}
STEPS["ddim10_start5"] = STEPS["ddim10_start10"][5:]


@pytest.fixture(scope="module")
def recorded() -> Any:
    with np.load(FIXTURE) as fixture:
        return {name: fixture[name] for name in fixture.files}


@pytest.fixture(scope="module", params=["tiny", pytest.param("xs", marks=pytest.mark.slow)])
def network(
    request: pytest.FixtureRequest,
    recorded: dict[str, np.ndarray],
    known_weights: Callable[..., dict[str, torch.Tensor]],
    save_released: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, DeCoDiffUNet]:
    """The network's name in the records, and the network, converted from a released file."""
    folder = tmp_path_factory.mktemp(request.param)
    shapes = json.loads(str(recorded["meta"]))[f"{request.param}_shapes"]
    file = save_released(folder / "last.pt", known_weights(shapes))
    names = [f"category {row}" for row in range(shapes["cond_stage_model.embedding.weight"][0])]
    heads = 2 if request.param == "tiny" else None
    convert(file, folder / "out", categories=names, num_heads=heads)
    return request.param, DeCoDiffUNet.from_pretrained(folder / "out" / "unet")


def close(found: torch.Tensor, expected: np.ndarray) -> None:
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=TOLERANCE)


def tensor(recorded: dict[str, np.ndarray], name: str) -> torch.Tensor:
    return torch.from_numpy(recorded[name])


@pytest.mark.parametrize("number", [2, 3, 4, 5, 10])
def test_schedules(recorded: dict[str, np.ndarray], number: int) -> None:
    scheduler = DeCoDiffScheduler()
    scheduler.set_timesteps(number)
    kept = scheduler.timesteps.flip(0)
    assert kept.tolist() == recorded[f"sched{number}_timestep_map"].tolist()
    alpha_bar = scheduler.alphas_cumprod[kept].numpy()
    noise_scale = np.sqrt(1 - alpha_bar)
    for name, found in {
        "alphas_cumprod": alpha_bar,
        "betas": 1 - alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]]),
        "sqrt_one_minus": noise_scale,
        "deviation_coeff": (1 - np.sqrt(alpha_bar)) / noise_scale,
    }.items():
        assert found == pytest.approx(recorded[f"sched{number}_{name}"], abs=1e-12), name


def test_reverse_steps_that_the_released_code_refuses(recorded: dict[str, np.ndarray]) -> None:
    for number in json.loads(str(recorded["meta"]))["reverse_steps_rejected"]:
        with pytest.raises(ConfigurationError):
            DeCoDiffScheduler().set_timesteps(int(number))


def forward(recorded: dict[str, np.ndarray], steps: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """z_t, the target, and the loss per image of a network that answers z_t / 2."""
    scheduler = DeCoDiffScheduler()
    x0, noise, mask = (tensor(recorded, name) for name in ("x0", "noise", "mask"))
    target = scheduler.deviation(x0, noise, mask, steps)
    corrupted = scheduler.add_deviation(x0, target, steps)
    return corrupted, target, (corrupted / 2 - target).square().mean((1, 2, 3))


def test_forward_process_target_and_loss(recorded: dict[str, np.ndarray]) -> None:
    for t in range(10):
        corrupted, target, loss = forward(recorded, torch.full((4,), t))
        close(target, recorded["train_target"][t])
        close(corrupted, recorded["train_x_t"][t])
        close(loss, recorded["train_loss_half_xt"][t])


def test_forward_process_with_one_timestep_per_image(recorded: dict[str, np.ndarray]) -> None:
    corrupted, _, loss = forward(recorded, tensor(recorded, "mixed_t"))
    close(corrupted, recorded["mixed_x_t"])
    close(loss, recorded["mixed_loss_half_xt"])


@torch.no_grad()
def test_network_forward(network: tuple[str, DeCoDiffUNet], recorded: dict[str, Any]) -> None:
    name, unet = network
    found = unet(*(tensor(recorded, key) for key in ("latents", "mixed_t", "class_ids")))
    close(found, recorded[f"{name}_fwd"])


@torch.no_grad()
def test_network_loss(network: tuple[str, DeCoDiffUNet], recorded: dict[str, Any]) -> None:
    name, unet = network
    ids = tensor(recorded, "class_ids")
    for t in range(10):
        found = unet(torch.from_numpy(recorded["train_x_t"][t]), t, ids)
        target = torch.from_numpy(recorded["train_target"][t])
        close((found - target).square().mean((1, 2, 3)), recorded[f"{name}_train_loss"][t])


@pytest.mark.parametrize("sampling", list(STEPS))
@torch.no_grad()
def test_reverse_trajectories(
    network: tuple[str, DeCoDiffUNet], recorded: dict[str, Any], sampling: str
) -> None:
    name, unet = network
    scheduler = DeCoDiffScheduler()
    scheduler.set_timesteps(timesteps=STEPS[sampling])
    sample, ids = tensor(recorded, "latents"), tensor(recorded, "class_ids")
    visited = recorded.get(f"{name}_{sampling}_trajectory", [None] * len(STEPS[sampling]))
    for t, expected in zip(scheduler.timesteps, visited, strict=True):
        sample = scheduler.step(unet(sample, t, ids), t, sample).prev_sample
        if expected is not None:
            close(sample, expected)
    close(sample, recorded[f"{name}_{sampling}"])


@pytest.mark.parametrize(
    ("fusion", "name"),
    [
        ("geometric", "anomaly_geometric"),
        ("arithmetic", "anomaly_aritmetic"),
        ("latent", "latent_discrepancy"),
        ("pixel", "image_discrepancy"),
    ],
)
def test_maps(recorded: dict[str, np.ndarray], fusion: str, name: str) -> None:
    image, reconstruction, encoded, latent = (
        tensor(recorded, f"maps_{key}") for key in ("x0_image", "recon_image", "encoded", "latent")
    )
    config = DiscrepancyConfig(fusion=fusion)  # type: ignore[arg-type]
    differences = pixel_discrepancy(reconstruction, image), latent_discrepancy(latent, encoded)
    maps = anomaly_maps(*smoothed(*differences, config), config)
    np.testing.assert_allclose(maps, recorded[f"maps_out_{name}"], rtol=0, atol=TOLERANCE)
