"""The released code's own numbers, where the folder that holds them is at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decodiff_pipeline.deco.config import DiscrepancyConfig
from decodiff_pipeline.deco.discrepancy import (
    anomaly_maps,
    latent_discrepancy,
    pixel_discrepancy,
    smoothed,
)
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.errors import ConfigurationError

FIXTURE = Path(os.environ.get("DECODIFF_TEST_DATA", "absent")).parent / "parity" / "fixture.npz"
pytestmark = pytest.mark.skipif(
    not FIXTURE.is_file(), reason="DECODIFF_TEST_DATA names no folder beside parity/fixture.npz"
)


@pytest.fixture(scope="module")
def recorded() -> Any:
    with np.load(FIXTURE) as fixture:
        return {name: fixture[name] for name in fixture.files}


@pytest.mark.parametrize("number", [2, 3, 4, 5, 10])
def test_schedules(recorded: dict[str, np.ndarray], number: int) -> None:
    scheduler = DeCoDiffScheduler()
    scheduler.set_timesteps(number)
    kept = scheduler.timesteps.flip(0)
    assert kept.tolist() == recorded[f"sched{number}_timestep_map"].tolist()
    expected = recorded[f"sched{number}_alphas_cumprod"]
    assert scheduler.alphas_cumprod[kept].numpy() == pytest.approx(expected, abs=1e-12)


def test_reverse_steps_that_the_released_code_refuses(recorded: dict[str, np.ndarray]) -> None:
    for number in json.loads(str(recorded["meta"]))["reverse_steps_rejected"]:
        with pytest.raises(ConfigurationError):
            DeCoDiffScheduler().set_timesteps(int(number))


def test_forward_process_and_target(recorded: dict[str, np.ndarray]) -> None:
    scheduler = DeCoDiffScheduler()
    x0, noise, mask = (torch.from_numpy(recorded[name]) for name in ("x0", "noise", "mask"))
    for t in range(10):
        steps = torch.full((len(x0),), t)
        target = scheduler.deviation(x0, noise, mask, steps)
        corrupted = scheduler.add_deviation(x0, target, steps)
        assert target.numpy() == pytest.approx(recorded["train_target"][t], abs=1e-5)
        assert corrupted.numpy() == pytest.approx(recorded["train_x_t"][t], abs=1e-5)


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
        torch.from_numpy(recorded[f"maps_{key}"])
        for key in ("x0_image", "recon_image", "encoded", "latent")
    )
    config = DiscrepancyConfig(fusion=fusion)  # type: ignore[arg-type]
    differences = pixel_discrepancy(reconstruction, image), latent_discrepancy(latent, encoded)
    maps = anomaly_maps(*smoothed(*differences, config), config)
    assert maps == pytest.approx(recorded[f"maps_out_{name}"], abs=1e-5)
