"""Each number moves with what it is named after, and with nothing else that matters."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from decodiff_pipeline.metrics.image_quality import QUALITY, image_quality


@pytest.fixture
def photograph() -> Image.Image:
    """Smooth coloured blobs with a little noise."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(60, 160, (8, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((200, 160), Image.Resampling.BICUBIC), float)
    noisy = smooth + random.normal(0, 2, (160, 200, 1))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def test_light_blur_noise_and_colour(photograph: Image.Image) -> None:
    before = image_quality(photograph)
    assert set(before) == set(QUALITY)
    brighter = image_quality(photograph.point(lambda value: min(255, round(value * 1.2))))
    assert brighter["brightness"] == pytest.approx(1.2 * before["brightness"], rel=0.01)
    blurred = image_quality(photograph.filter(ImageFilter.GaussianBlur(2)))
    assert blurred["sharpness"] < 0.2 * before["sharpness"]
    assert blurred["brightness"] == pytest.approx(before["brightness"], abs=0.005)
    red, green, blue = photograph.split()
    warm = Image.merge("RGB", (red.point(lambda value: value + 20), green, blue))
    assert image_quality(warm)["red_cast"] == pytest.approx(before["red_cast"] + 20 / 255, abs=1e-3)
    assert image_quality(photograph.convert("L"))["saturation"] == 0


def test_the_noise_estimate_is_its_standard_deviation() -> None:
    grey = np.random.default_rng(1).normal(128, 10, (300, 300)).clip(0, 255).astype(np.uint8)
    assert image_quality(Image.fromarray(grey))["noise"] == pytest.approx(10 / 255, rel=0.03)


@pytest.mark.parametrize("size", [(1, 1), (2, 500), (3000, 10)])
def test_odd_sizes_give_numbers(size: tuple[int, int]) -> None:
    found = image_quality(Image.new("RGB", size, (10, 200, 255)))
    assert np.isfinite(list(found.values())).all()
    assert found["aspect"] == size[0] / size[1]
