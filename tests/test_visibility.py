"""What is said to be visible is what an autoencoder of known faults leaves."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from kedro.framework.project import pipelines
from kedro.framework.startup import bootstrap_project
from PIL import Image
from torch.nn import functional

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.manifest import DataConfig, build_manifest
from decodiff_pipeline.deco.autoencoder import load_autoencoder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.visibility import report as visibility_report
from decodiff_pipeline.visibility.advice import answer, options, warnings
from decodiff_pipeline.visibility.config import VisibilityConfig
from decodiff_pipeline.visibility.defects import Kind, places
from decodiff_pipeline.visibility.measure import Visibility, measure_category

if TYPE_CHECKING:
    import pandas as pd

    from decodiff_pipeline.deco.weights import AutoencoderConfig

ROOT = Path(__file__).parents[1]
CELL = 8
CONFIG = VisibilityConfig(images=4, pictures=1)
SQUARE = PreprocessConfig(resize=64, image_size=64)


class Coder(torch.nn.Module):
    """Keeps everything, or the mean of every cell, or the grey of every pixel."""

    def __init__(self, loss: str = "none") -> None:
        super().__init__()
        self.loss = loss
        self.config = SimpleNamespace(
            scaling_factor=1.0, latent_channels=192, block_out_channels=(1,) * 4, get=self._get
        )
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def _get(self, name: str) -> Any:
        return (1,) * 4 if name == "block_out_channels" else None

    def encode(self, images: torch.Tensor) -> Any:
        if self.loss == "colour":
            images = images.mean(1, keepdim=True).expand_as(images)
        if self.loss == "detail":
            images = functional.interpolate(functional.avg_pool2d(images, CELL), scale_factor=CELL)
        return SimpleNamespace(latents=functional.pixel_unshuffle(images, CELL))

    def decode(self, latents: torch.Tensor) -> Any:
        return SimpleNamespace(sample=functional.pixel_shuffle(latents, CELL))


def category(root: Path, colour: bool, size: tuple[int, int] = (64, 64)) -> pd.DataFrame:
    """Rows of four good val images of smooth shades, and of a defect of 12x12 pixels."""
    random = np.random.default_rng(0)
    for number in range(5):
        coarse = random.integers(90, 160, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        image = image if colour else image.convert("L").convert("RGB")
        folder = root / "cap" / ("good" if number < 4 else "dent")
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number}.png")
    mask = np.zeros(size[::-1], np.uint8)
    mask[5:17, 5:17] = 255
    (root / "cap" / "masks" / "dent").mkdir(parents=True)
    Image.fromarray(mask).save(root / "cap" / "masks" / "dent" / "4.png")
    manifest = build_manifest(ImageFolder(root), DataConfig(layout="folder"))
    manifest.loc[manifest["label"] == "good", "split"] = "val"
    return manifest


def measured(
    root: Path, loss: str, colour: bool = False, geometry: PreprocessConfig = SQUARE
) -> Visibility:
    rows = category(root, colour)
    return measure_category(rows, ImageFolder(root), geometry, Coder(loss), CONFIG)  # type: ignore[arg-type]


def shares(found: Visibility, kind: str) -> dict[int, float]:
    return {row["model_pixels"]: row["share"] for row in found.defects if row["kind"] == kind}


def test_everything_is_visible_where_nothing_is_lost(tmp_path: Path) -> None:
    found = measured(tmp_path, "none", colour=True)
    assert found.figures["psnr"] == 100
    assert found.figures["saturation_kept"] == pytest.approx(1, abs=1e-3)
    assert found.figures["sharpness_kept"] == pytest.approx(1, abs=1e-3)
    assert all(row["visible"] for row in found.defects)
    assert set(shares(found, "colour_64")) == set(shares(found, "grey_32")) == {1, 2, 4, 8, 16, 32}
    assert found.figures["visible_grey_32"] == 1.0
    assert warnings("cap", found, CONFIG) == []


def test_what_is_smaller_than_a_cell_is_lost_with_detail(tmp_path: Path) -> None:
    found = measured(tmp_path, "detail")
    left = shares(found, "grey_32")
    assert left[1] == pytest.approx(1 / CELL**2, abs=2e-3)
    assert left[2] < 0.1
    assert left[32] > 0.75
    assert found.figures["sharpness_kept"] > 1  # edges of cells
    assert found.figures["visible_grey_32"] >= 4


def test_defects_of_colour_alone_are_lost_with_colour_and_said_loudly(tmp_path: Path) -> None:
    found = measured(tmp_path, "colour", colour=True)
    assert found.figures["saturation_kept"] == pytest.approx(0, abs=0.05)
    assert max(shares(found, "colour_64").values()) < 0.25
    assert found.figures["visible_colour_64"] is None
    assert found.figures["visible_grey_64"] is not None
    (loud,) = warnings("cap", found, CONFIG)
    assert "COLOUR IS LOST in cap" in loud
    assert "autoencoder.source" in loud


def test_grey_images_raise_no_question_of_colour(tmp_path: Path) -> None:
    found = measured(tmp_path, "colour")
    assert found.figures["saturation_kept"] is None
    assert not [row for row in found.defects if row["colour"]]
    assert warnings("cap", found, CONFIG) == []


def test_sizes_are_in_pixels_of_the_original_image(tmp_path: Path) -> None:
    rows = category(tmp_path, colour=False, size=(256, 64))
    for fit, (width, height) in {"stretch": (32, 8), "letterbox": (32, 32), "tile": (8, 8)}.items():
        geometry = PreprocessConfig(resize=64, image_size=64, fit=fit)  # type: ignore[arg-type]
        found = measure_category(rows, ImageFolder(tmp_path), geometry, Coder(), CONFIG)  # type: ignore[arg-type]
        cell = next(row for row in found.defects if row["cells"] == 1)
        assert (cell["width"], cell["height"]) == (width, height), fit
        assert found.masks["side"]["median"] == 12
        # 12 pixels: across 3 or 12 of the model's, down 12 or 3
        assert found.masks["side_cells"]["median"] == pytest.approx(
            12 / np.sqrt(width * height), abs=1e-3
        )
    crop = PreprocessConfig(resize=64, image_size=64, fit="crop")
    found = measure_category(rows, ImageFolder(tmp_path), crop, Coder(), CONFIG)  # type: ignore[arg-type]
    assert found.figures["seen"] == 0.25
    assert "75 % of an image" in warnings("cap", found, CONFIG)[0]


def test_a_colour_defect_keeps_the_brightness_and_a_grey_one_the_colour() -> None:
    region = np.full((4, 4, 3), (200, 180, 90), np.uint8)
    colour = Kind(64, colour=True).drawn(region).astype(float) - region
    assert abs(colour @ (0.299, 0.587, 0.114)).max() < 1
    assert abs(colour).max() == pytest.approx(64, abs=9 + 1)  # 255 - 200 leave no more to red
    assert (Kind(32).drawn(region) - region.astype(float) == -32).all()
    black = np.zeros((4, 4, 3), np.uint8)
    assert (Kind(64, colour=True).drawn(black) == 0).all()


def test_defects_of_an_image_do_not_overlap_and_are_where_the_image_is() -> None:
    box = (slice(16, 48), slice(0, 64))  # of a letterbox
    for side in (1, 8, 16):
        found = places("abc", box, side, 4)
        assert found is not None
        drawn = np.zeros((64, 64), int)
        for place in found:
            drawn[place] += 1
        assert drawn.max() == 1
        assert drawn.sum() == 4 * side**2
        assert drawn[box].sum() == 4 * side**2
    assert places("abc", box, 17, 4) is None


@pytest.mark.parametrize(
    ("size", "geometry", "expected"),
    [
        ((512, 512), PreprocessConfig(128, 128), [
            ("preprocessing.image_size=256,preprocessing.resize=256", 1, 4.0),
            ("preprocessing.fit=tile,preprocessing.resize=256,scoring.discrepancy.normalisation=none",
             9, 9.0),
        ]),
        ((1024, 256), PreprocessConfig(128, 128, "tile"), [
            ("preprocessing.resize=256", 33, 33 / 5),
        ]),
        ((565, 230), PreprocessConfig(174, 128, "tile"), [("preprocessing.resize=230", 18, 1.8)]),
        ((200, 200), PreprocessConfig(128, 128), [
            ("preprocessing.image_size=224,preprocessing.resize=224", 1, 3.0625),
            ("preprocessing.fit=tile,preprocessing.resize=200,scoring.discrepancy.normalisation=none",
             4, 4.0),
        ]),
        ((128, 128), PreprocessConfig(128, 128), []),
        ((2000, 2000), PreprocessConfig(288, 256), [
            ("preprocessing.image_size=512,preprocessing.resize=576", 1, 4.0),
            ("preprocessing.fit=tile,preprocessing.resize=576,scoring.discrepancy.normalisation=none",
             9, 9.0),
        ]),
    ],
)  # fmt: skip
def test_options_show_more_and_say_what_they_cost(
    size: tuple[int, int], geometry: PreprocessConfig, expected: list[tuple[str, int, float]]
) -> None:
    found = options(size, geometry)
    assert [(one.parameters, one.squares, pytest.approx(one.times)) for one in found] == expected
    assert all(one.finer >= 1.3 for one in found)


def test_the_answer_names_size_contrast_cure_and_time(tmp_path: Path) -> None:
    rows = category(tmp_path, colour=False, size=(512, 512))
    found = measure_category(rows, ImageFolder(tmp_path), SQUARE, Coder("detail"), CONFIG)  # type: ignore[arg-type]
    said = answer("cap", found, SQUARE, CONFIG)
    side = round(found.figures["visible_grey_32"])
    assert f"defects below {side}x{side} px of contrast 32 are invisible at 64²" in said
    assert "preprocessing.image_size=128,preprocessing.resize=128 (4 times the time)" in said
    assert "9 tiles, 9 times the time)" in said
    assert "12 px" in said


def test_images_too_thin_to_draw_in_are_told() -> None:
    found = Visibility({"images": 3, "width": 4000.0, "height": 10.0}, [], {})
    assert "too thin at 64²" in answer("cap", found, SQUARE, CONFIG)


def reported(
    root: Path, rows: pd.DataFrame, autoencoder: AutoencoderConfig
) -> tuple[dict[str, Any], dict[str, Visibility]]:
    return visibility_report.check_visibility(
        rows, ImageFolder(root), geometry=SQUARE, autoencoder=load_autoencoder(autoencoder),
        name="tiny", config=CONFIG, preset="nano", reverse_steps=5,
    )  # fmt: skip


def test_a_category_without_val_images_is_told(
    tmp_path: Path, tiny_autoencoder: AutoencoderConfig
) -> None:
    rows = category(tmp_path, colour=False)
    rows.loc[rows["split"] == "val", "split"] = "train"
    report, found = reported(tmp_path, rows, tiny_autoencoder)
    assert report["answers"] == ["cap: not measured, because it has no good val image"]
    assert "Visibility" in visibility_report.render(report, found, CONFIG)


def test_the_report_is_json_and_a_page_that_loads_nothing(
    tmp_path: Path, tiny_autoencoder: AutoencoderConfig
) -> None:
    rows = category(tmp_path, colour=True)
    rows["category"] = "<b>cap"
    report, found = reported(tmp_path, rows, tiny_autoencoder)
    again, pictures = reported(tmp_path, rows, tiny_autoencoder)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    page = visibility_report.render(report, found, CONFIG)
    assert (again, visibility_report.render(again, pictures, CONFIG)) == (report, page)  # for DVC
    assert page.count("<img") == 3 * (1 + 3)  # an image, and defects of 8, 16 and 32 pixels
    assert "://" not in page
    assert "<b>" not in page
    assert "COLOUR IS LOST" in page


@pytest.mark.parametrize("name", ["train", "retrain", "__default__"])
def test_it_comes_after_caching_and_before_training(name: str) -> None:
    bootstrap_project(ROOT)
    order = [one.name for one in pipelines[name].nodes]
    positions = [order.index(f) for f in ("cache_latents", "check_visibility", "train_network")]
    assert positions == sorted(positions)
