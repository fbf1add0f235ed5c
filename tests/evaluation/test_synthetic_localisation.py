"""Localisation measured on synthetic defects, for categories without masks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.models import StandInModel

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.preprocess import to_uint8
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.evaluation.synthetic_localisation import measure_synthetic_localisation
from decodiff_pipeline.metrics.exact import PIXEL_METRICS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

GREY = 100
GEOMETRY = PreprocessConfig(resize=96, image_size=64)


class DeviationModel(StandInModel):
    """Its map is how far a pixel is from the grey that all good images have."""

    categories = ("plain", "masked", "new", "empty")
    preprocessing = GEOMETRY

    def __init__(self) -> None:
        self.seen = 0

    def __call__(
        self, images: torch.Tensor, category: Sequence[str], **_: object
    ) -> SimpleNamespace:
        self.seen += len(images)
        squares = to_uint8(images)
        maps = abs(squares.astype(np.float32) - GREY).max(-1) / 255
        return SimpleNamespace(anomaly_maps=maps, scores=maps.max((1, 2)), reconstructions=squares)


@pytest.fixture
def images(tmp_path: Path) -> ImageFolder:
    Image.new("L", (50, 40), GREY).save(tmp_path / "good.png")
    return ImageFolder(tmp_path)


def rows(category: str, split: str, label: str, count: int, mask: str | None = None) -> list[dict]:
    return [
        {"category": category, "split": split, "label": label, "path": "good.png",
         "sha256": f"{category} {split} {number}", "mask_path": mask}
        for number in range(count)
    ]  # fmt: skip


def measured(images: ImageFolder, table: list[dict], **options: object) -> dict:
    return measure_synthetic_localisation(
        DeviationModel(), pd.DataFrame(table), images, EvaluationConfig(batch_size=2, **options)
    )


def test_a_model_that_sees_every_deviation_gets_perfect_marks(images: ImageFolder) -> None:
    table = rows("plain", "test", "good", 5) + rows("plain", "test", "defective", 2)
    row = measured(images, table)["plain"]
    assert (row["n"], row["split"]) == (5, "test")
    # What changes by less than the mask's 12 grey levels is not above anything within the mask,
    # whatever geometry the image and its mask went through.
    assert {name: row[name] for name in PIXEL_METRICS} == pytest.approx(
        dict.fromkeys(PIXEL_METRICS, 1.0)
    )
    assert measured(images, table)["plain"] == row


def test_categories_with_masks_are_left_alone(images: ImageFolder) -> None:
    table = rows("masked", "test", "good", 2) + rows("masked", "test", "defective", 1, "mask.png")
    assert measured(images, table) == {}


def test_calibration_images_serve_where_test_has_no_good_ones(images: ImageFolder) -> None:
    table = rows("new", "calibration", "good", 3) + rows("new", "test", "defective", 2)
    row = measured(images, table)["new"]
    assert (row["n"], row["split"]) == (3, "calibration")
    assert row["pixel_auroc"] == pytest.approx(1)


def test_a_category_without_good_images_to_use_gets_nulls(images: ImageFolder) -> None:
    table = rows("empty", "train", "good", 3) + rows("empty", "test", "defective", 2)
    assert measured(images, table)["empty"] == {
        "n": 0,
        "split": None,
        "protocol": "strict",
        "resolution": "model",
        **dict.fromkeys(PIXEL_METRICS),
    }


def test_the_number_of_images_is_limited_and_zero_switches_it_off(images: ImageFolder) -> None:
    table = rows("plain", "test", "good", 5)
    assert measured(images, table, synthetic_images=1)["plain"]["n"] == 1
    model = DeviationModel()
    off = EvaluationConfig(synthetic_images=0)
    assert measure_synthetic_localisation(model, pd.DataFrame(table), images, off) == {}
    assert model.seen == 0


def test_one_image_is_enough_and_a_mask_may_fall_into_the_margin(images: ImageFolder) -> None:
    for number in range(6):
        table = [rows("plain", "test", "good", 1)[0] | {"sha256": f"alone {number}"}]
        row = measured(images, table)["plain"]
        assert row["n"] == 1
        assert row["pixel_auroc"] is None or row["pixel_auroc"] > 0.99
