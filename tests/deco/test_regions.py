"""A region of the image counts alone: in maps, scores and boxes, whatever the geometry."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from tests.models import small_pipeline
from torch.nn.functional import avg_pool2d

from decodiff_pipeline.deco.config import DiscrepancyConfig, ImageScoreConfig, PreprocessConfig
from decodiff_pipeline.deco.discrepancy import Discrepancies, image_scores, smoothed
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.deco.regions import EVERYTHING, Region, fill, latent_cells
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

FITS = {
    "stretch": ((48, 32), PreprocessConfig(32, 32)),
    "letterbox": ((48, 32), PreprocessConfig(32, 32, "letterbox")),
    "crop": ((48, 32), PreprocessConfig(32, 32, "crop")),
    "tile": ((96, 64), PreprocessConfig(32, 32, "tile", overlap=0.5)),
}


def left_part(size: tuple[int, int]) -> Region:
    """Everything left of seven twelfths of the width."""
    inside = np.zeros(size[::-1], bool)
    inside[:, : size[0] * 7 // 12] = True
    return Region.of(inside)


def brightness_of(model: DeCoDiffPipeline) -> DeCoDiffPipeline:
    """The model with discrepancies that are the grey value, of each pixel by itself."""

    def discrepancies(images: torch.Tensor, *_: object) -> Discrepancies:
        grey = (images.mean(1) + 1) / 2
        return Discrepancies(grey, avg_pool2d(grey[:, None], 8)[:, 0], images)

    model.discrepancies = discrepancies
    return model


def scored(fit: str, bright: slice | None, **scoring: object) -> tuple[float, np.ndarray]:
    """Score and full-size map of a dim image with a bright bar at some columns."""
    size, geometry = FITS[fit]
    model = small_pipeline(["part"])
    model.register_to_config(
        preprocess=geometry.facts(),
        discrepancy=DiscrepancyConfig(pixel_limit=1, latent_limit=1, **scoring).facts(),
        regions={"part": asdict(left_part(size))},
    )
    model.set_progress_bar_config(disable=True)
    pixels = np.random.default_rng(0).integers(20, 60, size[::-1], np.uint8)
    if bright is not None:
        pixels[:, bright] = 250
    output = brightness_of(model)(Image.fromarray(pixels), "part")
    return float(output.scores[0]), output.full_size_maps[0]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("saved_before", [False, True])
def test_nothing_outside_reaches_score_or_map(fit: str, saved_before: bool) -> None:
    """Of a whole model; one that was saved before images were filled sees all of the image."""
    size, geometry = FITS[fit]
    model = small_pipeline(["part"])
    facts = replace(left_part(size), filled=True).facts()
    if saved_before:
        del facts["filled"]
    model.register_to_config(preprocess=geometry.facts(), regions={"part": facts})
    model.set_progress_bar_config(disable=True)
    random = np.random.default_rng(0)
    first, second = random.integers(0, 255, (2, *size[::-1], 3), np.uint8)
    seen = size[0] * 8 // 12  # a little more: resizing blends what lies beside each other
    second[:, :seen] = first[:, :seen]
    output = model([Image.fromarray(pixels) for pixels in (first, second)], "part")
    assert output.full_size_maps[0].any()
    assert (len(set(output.scores.tolist())) == 1) is not saved_before
    assert np.array_equal(*output.full_size_maps) is not saved_before


def test_a_pixel_outside_becomes_the_nearest_one_inside() -> None:
    inside = np.zeros((3, 5), bool)
    inside[1, 1:4] = True
    pixels = np.arange(15).reshape(3, 5)
    expected = [[6, 6, 7, 8, 8]] * 3
    assert fill(pixels, inside).tolist() == expected
    assert fill(torch.from_numpy(pixels), inside).tolist() == expected
    assert fill(fill(pixels, inside), inside).tolist() == expected
    assert fill(pixels, inside & False) is pixels
    assert fill(pixels, inside | True) is pixels


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(
    "scoring",
    [
        {},
        {"score_from": "latent", "top_share": 0.05, "level_power": 0.5},
        {"score_from": "pixel", "top_share": 0.1, "level_power": 0.75, "level_sigma": 0.125},
    ],
)
def test_a_defect_outside_changes_nothing_and_one_inside_does(fit: str, scoring: dict) -> None:
    (width, _), _ = FITS[fit]
    good, good_map = scored(fit, None, **scoring)
    outside, outside_map = scored(fit, slice(width * 10 // 12, None), **scoring)
    inside, inside_map = scored(fit, slice(width // 3, width * 5 // 12), **scoring)
    assert outside == good
    assert np.array_equal(outside_map, good_map)
    assert inside > 1.1 * good
    for full in (good_map, outside_map, inside_map):
        assert not full[:, width * 7 // 12 :].any()
        assert full[:, width // 4 : width // 2].all()


def test_a_region_keeps_the_borders_of_its_maps_as_bright_as_the_rest() -> None:
    """Zeros outside would dim them."""
    inside = np.zeros((1, 32, 32), bool)
    inside[:, 8:24, 8:24] = True
    for found in smoothed(
        torch.full((1, 32, 32), 0.25), torch.full((1, 4, 4), 0.1), DiscrepancyConfig(), inside
    ):
        assert found.numpy()[inside] == pytest.approx(found.max().item(), rel=1e-5)
        assert not found.numpy()[~inside].any()


def test_a_share_is_of_the_pixels_that_count() -> None:
    values = np.zeros((1, 10, 10), np.float32)
    values[0, :2] = np.arange(20).reshape(2, 10)
    inside = np.zeros((1, 10, 10), bool)
    inside[0, :2] = True
    config = ImageScoreConfig(top_share=0.1)
    assert image_scores(values, config, inside=inside) == pytest.approx([18.5])  # 2 of 20
    assert image_scores(values, config, inside=np.ones_like(inside)) == image_scores(values, config)
    assert image_scores(values, config, inside=np.zeros_like(inside)) == 0


def test_a_region_is_scaled_with_its_image() -> None:
    inside = np.random.default_rng(1).random((9, 7)) > 0.5
    region = Region.of(inside)
    assert np.array_equal(region.at((7, 9)), inside)
    assert np.array_equal(region.at((21, 27)), inside.repeat(3, 0).repeat(3, 1))
    assert Region(**region.facts()) == region
    assert set(region.facts()) == {"width", "height", "runs"}  # as those of earlier models
    filled = replace(region, filled=True)
    assert Region(**filled.facts()) == filled != region
    assert EVERYTHING.at((5, 4)).all()
    assert Region.of(~np.ones((2, 2), bool)).runs == "4"
    with pytest.raises(ModelError, match="not 7x9 pixels"):
        Region(7, 9, "3 4")


def test_a_latent_cell_counts_with_all_of_its_pixels() -> None:
    inside = np.zeros((1, 16, 16), bool)
    inside[0, :, :8] = inside[0, :, 9:] = True
    assert latent_cells(inside, 2).tolist() == [[[True, False], [True, False]]]


def test_a_region_is_saved_with_the_model_and_absent_without(tmp_path: Path) -> None:
    model = small_pipeline(["part", "other"])
    assert "regions" not in model.config
    region = left_part((48, 32))
    model.register_to_config(regions={"part": asdict(region)})
    model.save_pretrained(tmp_path)
    loaded = DeCoDiffPipeline.from_pretrained(tmp_path)
    assert loaded.regions == {"part": region}
    loaded.set_progress_bar_config(disable=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 48), np.uint8))
    part, other = loaded([image, image], ["part", "other"]).full_size_maps
    assert not part[:, 28:].any()
    assert part[:, 8:20].all()
    assert other[:, 30:].all()
