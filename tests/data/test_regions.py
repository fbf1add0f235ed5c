"""Masks and polygons of the parameters: what becomes of them, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydantic import ValidationError

from decodiff_pipeline.data.regions import RegionConfig, filled, load_regions
from decodiff_pipeline.data.synthetic_defects import HARDER, VERSION, synthetic_defect
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

GEOMETRY = PreprocessConfig(64, 64)
BOX = [[10, 20], [70, 20], [70, 60], [10, 60]]


def manifest(*sizes: tuple[int, int]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"category": "part", "path": f"{number}.png", "width": width, "height": height}
            for number, (width, height) in enumerate(sizes)
        ]
    )


def region(config: dict[str, Any], *sizes: tuple[int, int], **options: Any) -> np.ndarray:
    size = sizes[0] if sizes else (100, 80)
    loaded = load_regions(
        {"part": RegionConfig.model_validate(config)},
        manifest(*(sizes or [size])),
        PreprocessConfig(**{"resize": 64, "image_size": 64} | options),
    )
    return loaded["part"].at(size)


def test_polygons_are_filled_to_the_pixel() -> None:
    expected = np.zeros((80, 100), bool)
    expected[20:60, 10:70] = True
    assert np.array_equal(region({"include": [BOX]}), expected)
    assert np.array_equal(region({"exclude": [BOX]}), ~expected)
    whole = [[0, 0], [100, 0], [100, 80], [0, 80]]
    assert region({"include": [whole]}).all()
    triangle = filled(np.array([[0, 0], [10, 0], [0, 10]], float), 10, 10)
    assert np.array_equal(triangle, np.add.outer(np.arange(10), np.arange(10)) < 9)


def test_a_mask_is_scaled_to_its_images(tmp_path: Path) -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[10:30, 5:35] = 7
    Image.fromarray(mask).save(tmp_path / "mask.png")
    expected = np.zeros((80, 100), bool)
    expected[20:60, 10:70] = True
    assert np.array_equal(region({"include": str(tmp_path / "mask.png")}), expected)
    assert np.array_equal(region({"exclude": str(tmp_path / "mask.png")}), ~expected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "give either include or exclude"),
        ({"include": [BOX], "exclude": [BOX]}, "give either include or exclude"),
        ({"include": [BOX[:2]]}, "needs 3 or more points"),
        ({"include": [[[0, 0], [1, 1], [2]]]}, "needs 3 or more points"),
        ({"include": [[[0, 0], [1, 1], [2, float("nan")]]]}, "needs 3 or more points"),
        ({"include": BOX}, "a list of polygons, also where there is one"),
        ({"include": []}, "the path of a mask, or a list of polygons"),
        ({"include": 3}, "the path of a mask, or a list of polygons"),
        ({"include": "a.png", "size": [3, 4]}, "polygons were drawn on"),
    ],
)
def test_what_is_no_region_is_said_in_one_sentence(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RegionConfig.model_validate(config)
    (error,) = caught.value.errors()
    assert message in error["msg"]


@pytest.mark.parametrize(
    ("config", "sizes", "options", "message"),
    [
        ({"include": "no.png"}, [(9, 9)], {}, "regions.part: no.png does not exist"),
        ({"include": [[*BOX, [101, 3]]]}, [(100, 80)], {}, r"\[101, 3\] lies outside .* 100x80"),
        ({"exclude": [[[0, 0], [9, 0], [9, 9], [0, 9]]]}, [(9, 9)], {}, "leaves no pixel"),
        ({"include": [BOX]}, [(100, 80), (50, 40)], {}, "2 sizes .*size: "),
        ({"include": [BOX], "size": [100, 80]}, [(100, 80), (50, 90)], {}, "1.png has 50x90.*asp"),
        ({"include": [[[1, 1], [5, 1], [1, 5]]]}, [(100, 80)], {}, "no whole latent cell .8x8"),
        (
            {"include": [[[0, 0], [20, 0], [20, 80], [0, 80]]]}, [(200, 80)], {"fit": "crop"},
            "no whole latent cell .* of what the model sees",
        ),
    ],
)  # fmt: skip
def test_what_does_not_suit_the_images_is_refused(
    config: dict[str, Any], sizes: list[tuple[int, int]], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        region(config, *sizes, **options)


def test_an_unknown_category_and_a_damaged_mask_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'prat', but the data have part"):
        load_regions({"prat": RegionConfig(include=[BOX])}, manifest((9, 9)), GEOMETRY)
    (tmp_path / "mask.png").write_bytes(b"no picture")
    with pytest.raises(ConfigurationError, match=r"regions\.part: .*mask\.png"):
        region({"include": str(tmp_path / "mask.png")})


@pytest.mark.parametrize("version", [VERSION, HARDER])
def test_synthetic_defects_are_put_inside(version: int) -> None:
    good = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    inside = np.zeros((64, 64), bool)
    inside[40:56, 8:20] = True
    for number in range(40):
        image, mask = synthetic_defect(good, "a", number, version=version, inside=inside)
        assert mask.any()
        assert np.array_equal(image[~inside], good[~inside])
        assert not mask[~inside].any()
    uniform = np.full((64, 64, 3), 90, np.uint8)
    assert synthetic_defect(uniform, "a", 0, version=version, inside=inside)[1].any()
