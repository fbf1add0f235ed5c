"""From an image to squares and back, whatever the fit, the size and the shape."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from decodiff_pipeline.deco.config import DiscrepancyConfig, PreprocessConfig, require_places
from decodiff_pipeline.deco.geometry import (
    as_seen,
    plan,
    seen,
    square_count,
    squares,
    stitch,
    to_original,
)
from decodiff_pipeline.deco.preprocess import resize_mask, to_square, to_tensor, to_uint8
from decodiff_pipeline.errors import ConfigurationError, ImageError

FITS = [
    PreprocessConfig(64, 64),
    PreprocessConfig(96, 64),
    PreprocessConfig(96, 96, "letterbox"),
    PreprocessConfig(64, 64, "crop"),
    PreprocessConfig(96, 64, "crop"),
    PreprocessConfig(64, 64, "tile", 0.0),
    PreprocessConfig(96, 64, "tile", 0.5),
]
SIZES = [(200, 90), (70, 231), (64, 64), (97, 101), (40, 30)]


def name(config: PreprocessConfig) -> str:
    return f"{config.fit}{config.resize}-{config.image_size}"


every_fit = pytest.mark.parametrize("config", FITS, ids=name)
every_size = pytest.mark.parametrize("size", SIZES, ids=str)


def smooth(size: tuple[int, int]) -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@every_fit
@every_size
def test_stitched_squares_are_the_image_as_it_was_seen(
    size: tuple[int, int], config: PreprocessConfig
) -> None:
    image = smooth(size)
    parts = squares(image, config)
    assert {part.shape for part in parts} == {(config.image_size, config.image_size, 3)}
    assert len(parts) == square_count(size, config)
    assert config.fit == "tile" or len(parts) == 1
    whole = stitch(parts, size, config)
    assert whole.dtype == np.uint8
    assert np.array_equal(whole, as_seen(image, config))
    grey = [part[..., 0].astype(np.float32) for part in parts]
    assert np.array_equal(stitch(grey, size, config), whole[..., 0].astype(np.float32))


@every_fit
@every_size
def test_the_way_back_leads_to_the_same_pixels(
    size: tuple[int, int], config: PreprocessConfig
) -> None:
    image = smooth(size)
    there = to_original(as_seen(image, config)[..., 1].astype(np.float32), size, config)
    known = seen(size, config)
    assert (there.dtype, there.shape) == (np.float32, size[::-1])
    assert np.abs(there - np.asarray(image)[..., 1])[known].mean() < 2  # of 255 grey levels
    assert not there[~known].any()
    assert known.all() or config.crops


@pytest.mark.parametrize(
    ("config", "size", "rows", "columns"),
    [
        (PreprocessConfig(96, 64), (96, 192), (32, 160), (16, 80)),
        (PreprocessConfig(64, 64, "crop"), (200, 100), (0, 100), (50, 150)),
        (PreprocessConfig(128, 64, "crop"), (100, 200), (75, 125), (25, 75)),
    ],
)
def test_what_the_crop_leaves(
    config: PreprocessConfig, size: tuple[int, int], rows: Any, columns: Any
) -> None:
    known = np.argwhere(seen(size, config))
    assert (known[:, 0].min(), known[:, 0].max() + 1) == rows
    assert (known[:, 1].min(), known[:, 1].max() + 1) == columns
    assert len(known) == (rows[1] - rows[0]) * (columns[1] - columns[0])


def test_a_border_is_not_dimmed_by_what_was_cropped_off() -> None:
    config, size = PreprocessConfig(96, 64, "crop"), (300, 200)
    full = to_original(np.full((64, 64), 0.5, np.float32), size, config)
    assert np.array_equal(full > 0, seen(size, config))
    assert full[seen(size, config)] == pytest.approx(0.5)


def test_letterbox_pads_with_the_outermost_pixels_and_hides_the_padding() -> None:
    image, config = smooth((100, 50)), PreprocessConfig(64, 64, "letterbox")
    (square,) = squares(image, config)
    assert (square[:16] == square[16]).all() and (square[48:] == square[47]).all()
    assert np.array_equal(as_seen(image, config), square[16:48])
    assert stitch([np.ones((64, 64))], image.size, config).shape == (32, 64)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("size", [(64, 64), (65, 64), (400, 64), (64, 331), (127, 128)], ids=str)
def test_tiles_cover_everything_and_overlap_enough(size: tuple[int, int], overlap: float) -> None:
    config = PreprocessConfig(64, 64, "tile", overlap)
    for axis in plan(size, config):
        steps = np.diff(axis.starts)
        assert axis.starts[0] == 0 and axis.starts[-1] + 64 == axis.scaled
        assert (steps <= np.ceil(64 * (1 - overlap))).all()
        assert (steps > 0).all()


def test_where_tiles_overlap_their_maps_blend_without_a_seam() -> None:
    config, size = PreprocessConfig(64, 64, "tile", 0.5), (96, 64)
    low, high = np.zeros((64, 64), np.float32), np.ones((64, 64), np.float32)
    blended = stitch([low, high], size, config)
    assert (blended[:, :32] == 0).all() and (blended[:, 64:] == 1).all()
    assert np.abs(np.diff(blended, axis=1)).max() < 0.05
    assert blended[:, 48].mean() == pytest.approx(0.5, abs=0.02)


@every_fit
@every_size
def test_a_mask_lies_on_the_map_as_the_defect_does(
    size: tuple[int, int], config: PreprocessConfig
) -> None:
    width, height = size
    mask = np.zeros((height, width), bool)
    mask[height // 3 : height * 2 // 3, width // 3 : width * 3 // 5] = True
    there = as_seen(Image.fromarray(mask.astype(np.uint8) * 255), config)[..., 0] > 127
    placed = resize_mask(mask, config)
    assert placed.shape == there.shape
    assert placed.any()
    edges = [np.r_[np.argwhere(each).min(0), np.argwhere(each).max(0)] for each in (placed, there)]
    assert np.abs(edges[0] - edges[1]).max() <= 1


def test_the_smallest_defect_survives_in_every_fit_that_sees_it() -> None:
    for config in FITS:
        mask = np.zeros((700, 900), bool)
        mask[351, 452] = True
        assert resize_mask(mask, config).sum() == 1, config
        mask[:] = False
        mask[0, 0] = True
        assert resize_mask(mask, config).sum() == (not config.crops), config


def test_a_sliver_is_refused_where_its_short_side_would_be_scaled_up() -> None:
    with pytest.raises(ImageError, match=r"an image of 7000x100 pixels is too narrow.*letterbox"):
        square_count((7000, 100), PreprocessConfig(64, 64, "tile"))
    assert square_count((7000, 100), PreprocessConfig(64, 64, "letterbox")) == 1


@pytest.mark.parametrize(
    ("fields", "cure"),
    [
        ({"fit": "letterbox", "resize": 96, "image_size": 64}, "make them equal"),
        ({"fit": "tile", "overlap": 0.8}, r"overlap is 0\.8; it must lie within 0…0\.75"),
        ({"overlap": -0.1}, "overlap"),
        ({"resize": 64, "image_size": 96}, "preprocessing"),
        ({"resize": 100, "image_size": 100}, "preprocessing"),
        ({"resize": 16, "image_size": 16}, "preprocessing"),
        ({"fit": "tile", "resize": 32, "image_size": 64}, "smaller than image_size"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], cure: str) -> None:
    with pytest.raises(ConfigurationError, match=cure):
        PreprocessConfig(**fields)


def test_places_of_tiles_cannot_be_compared() -> None:
    by_position = DiscrepancyConfig(normalisation="position")
    require_places(by_position, PreprocessConfig(fit="letterbox"))
    with pytest.raises(ConfigurationError, match=r"normalisation is 'position'.*'tile'"):
        require_places(by_position, PreprocessConfig(fit="tile"))


def test_identities_of_the_time_of_one_fit_stay_as_they_were() -> None:
    assert PreprocessConfig(288, 256).facts() == {"resize": 288, "image_size": 256}
    facts = [PreprocessConfig(fit=fit).facts() for fit in ("stretch", "letterbox", "crop", "tile")]
    assert len({str(each) for each in facts}) == 4
    for config in FITS:
        assert asdict(PreprocessConfig(**config.facts())) | {"overlap": 0} == asdict(config) | {
            "overlap": 0
        }


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
    assert resize_mask(mask, FITS[0]).mean() == pytest.approx(0.2, abs=0.01)


def test_upscaling_keeps_every_region() -> None:
    mask = np.zeros((8, 8), bool)
    mask[2, 3] = True
    big = resize_mask(mask, FITS[0])
    assert big[16:24, 24:32].all()
    assert big.sum() == 64
