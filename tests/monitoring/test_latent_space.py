"""Coordinates in latent space, and that a file keeps them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from decodiff_pipeline.monitoring.features import LatentSpace


def test_the_latent_space_survives_its_file_and_sees_new_images_alike() -> None:
    random = np.random.default_rng(0)
    fitted, new = random.normal(size=(2, 60, 20)) @ random.normal(size=(20, 20))
    space = LatentSpace.fit(fitted, 5)
    placed = space.place(fitted)
    assert np.std(placed["latent_1"], ddof=1) == pytest.approx(1)
    assert np.sqrt(np.mean(placed["latent_residual"] ** 2)) == pytest.approx(1)
    again = LatentSpace.from_dict(json.loads(json.dumps(space.to_dict())))
    for name, values in again.place(new).items():
        assert values == pytest.approx(space.place(new)[name], rel=1e-3, abs=1e-3)
