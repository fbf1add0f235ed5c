"""The procedural images: reproducible, varied, and in the range that everything expects."""

from __future__ import annotations

import numpy as np
import pytest

from decodiff_pipeline.data.procedural import FIELDS, procedural_image


def test_an_image_depends_on_its_seed_and_index_alone() -> None:
    first = procedural_image(3, 5, size=48)
    procedural_image(3, 4, size=48)
    np.testing.assert_array_equal(first, procedural_image(3, 5, size=48))
    assert not np.array_equal(first, procedural_image(3, 6, size=48))
    assert not np.array_equal(first, procedural_image(4, 5, size=48))


def test_images_are_rgb_bytes_and_rarely_empty() -> None:
    images = [procedural_image(0, index, size=64) for index in range(40)]
    assert all(image.shape == (64, 64, 3) and image.dtype == np.uint8 for image in images)
    contrast = [image.std(axis=(0, 1)).max() for image in images]
    assert np.median(contrast) > 10


def test_both_grey_and_coloured_images_occur() -> None:
    images = [procedural_image(1, index, size=32).astype(int) for index in range(40)]
    coloured = sum(bool(np.ptp(image, axis=2).max() > 8) for image in images)
    assert 20 < coloured < 40


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_every_field_is_finite_and_varies_for_any_size(name: str) -> None:
    for seed, size in ((0, 16), (1, 33), (2, 64)):
        field = FIELDS[name][0](np.random.default_rng(seed), size)
        assert field.shape == (size, size)
        assert np.isfinite(field).all()
        assert np.ptp(field) > 0
