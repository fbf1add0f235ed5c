"""Images and masks on their way to the model's square."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.preprocess import resize_mask, to_square, to_tensor, to_uint8
from decodiff_pipeline.errors import ConfigurationError

PLAIN = PreprocessConfig(resize=64, image_size=64)


def test_the_crop_is_the_centre_of_the_resized_image() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 50, 3), np.uint8))
    whole = to_square(image, PreprocessConfig(resize=96, image_size=96))
    cropped = to_square(image, PreprocessConfig(resize=96, image_size=64))
    assert np.array_equal(cropped, whole[16:80, 16:80])


def test_tensors_and_bytes_convert_back_and_forth() -> None:
    square = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    tensor = to_tensor([square])
    assert tensor.dtype == torch.float32
    assert -1 <= tensor.min() and tensor.max() <= 1
    assert np.array_equal(to_uint8(tensor)[0], square)


def test_a_large_region_keeps_its_share_of_the_image() -> None:
    mask = np.zeros((100, 200), bool)
    mask[20:60, 50:150] = True  # 20 % of the image
    assert resize_mask(mask, PLAIN).mean() == pytest.approx(0.2, abs=0.01)


def test_a_vanishing_region_keeps_one_pixel_at_its_place() -> None:
    mask = np.zeros((640, 640), bool)
    mask[401:403, 101:104] = True
    found = np.argwhere(resize_mask(mask, PLAIN))
    assert found.tolist() == [[40, 10]]


def test_upscaling_keeps_every_region() -> None:
    mask = np.zeros((8, 8), bool)
    mask[2, 3] = True
    big = resize_mask(mask, PLAIN)
    assert big[16:24, 24:32].all()
    assert big.sum() == 64


@pytest.mark.parametrize(("resize", "image_size"), [(64, 96), (100, 100), (16, 16)])
def test_sizes_that_cannot_work_are_refused(resize: int, image_size: int) -> None:
    with pytest.raises(ConfigurationError, match="preprocessing"):
        PreprocessConfig(resize=resize, image_size=image_size)
