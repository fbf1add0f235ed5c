"""Coordinates in latent space, and that a file keeps them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from decodiff_pipeline.deco.regions import Region
from decodiff_pipeline.monitoring.features import LatentSpace, Photograph


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


@pytest.mark.parametrize("filled", [True, False])
def test_what_lies_outside_of_a_region_is_not_measured(filled: bool) -> None:
    inside = np.zeros((40, 40), bool)
    inside[8:32, :24] = True
    first, second = np.random.default_rng(0).integers(0, 255, (2, 40, 40, 3), np.uint8)
    second[:, :32] = first[:, :32]
    region = Region.of(inside, filled=filled)
    seen = [Photograph.of(Image.fromarray(one), 32, region) for one in (first, second)]
    assert (seen[0].quality == seen[1].quality) is filled
    assert np.array_equal(seen[0].square, seen[1].square) is filled
