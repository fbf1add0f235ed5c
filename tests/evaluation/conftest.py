"""A small data set, and a stand-in for the model that finds bright squares."""

from __future__ import annotations

from itertools import islice
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.models import StandInModel

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.geometry import square_count, stitch
from decodiff_pipeline.deco.preprocess import to_uint8
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.evaluation.predictions import PredictionStore
from decodiff_pipeline.evaluation.scoring import score_images

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

SIDE = 64
GEOMETRY = PreprocessConfig(resize=SIDE, image_size=SIDE)
SQUARE = slice(20, 36)


class BrightnessModel(StandInModel):
    """Its map is the grey value: defects are brighter than anything good."""

    categories: tuple[str, ...] = ("plate", "odd/../$name", "spare")
    preprocessing = GEOMETRY

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(
        self,
        images: torch.Tensor,
        category: Sequence[str],
        sizes: Sequence[tuple[int, int]],
        **_: object,
    ) -> SimpleNamespace:
        self.calls.append(len(category))
        geometry = self.preprocessing
        remaining = iter(to_uint8(images))
        pictures = [
            stitch(list(islice(remaining, square_count(size, geometry))), size, geometry)
            for size in sizes
        ]
        maps = [picture.mean(-1, dtype=np.float32) / 255 for picture in pictures]
        scores = np.array([anomaly_map.max() for anomaly_map in maps])
        return SimpleNamespace(anomaly_maps=maps, scores=scores, reconstructions=pictures)


def picture(path: Path, seed: int, brightness: int) -> None:
    """Dim noise with a square of some brightness."""
    pixels = np.random.default_rng(seed).integers(10, 60, (SIDE, SIDE), dtype=np.uint8)
    pixels[SQUARE, SQUARE] += np.uint8(brightness)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


class World:
    """Images on disk and the manifest that lists them."""

    def __init__(self, root: Path) -> None:
        self.images = ImageFolder(root / "raw")
        self.store = PredictionStore(root / "predictions")
        self.model = BrightnessModel()
        self.config = EvaluationConfig(batch_size=4, gallery_size=2)
        self.rows: list[dict[str, object]] = []

    def add(
        self, category: str, split: str, label: str, count: int, *, mask: bool = False
    ) -> World:
        """Adds images; defective ones get brighter squares."""
        folder = f"c{sorted({category, *(str(r['category']) for r in self.rows)}).index(category)}"
        for _ in range(count):
            number = len(self.rows)
            name = f"{folder}/{split}/{label}/{number:03d}.png"
            brightness = {"good": 0, "uncertain": 60, "defective": 120}[label]
            picture(self.images.path / name, number, brightness + number % 7)
            mask_path = None
            if mask:
                mask_path = f"masks/{number:03d}.png"
                (self.images.path / "masks").mkdir(exist_ok=True)
                truth = np.zeros((SIDE, SIDE), np.uint8)
                truth[SQUARE, SQUARE] = 255
                Image.fromarray(truth).save(self.images.path / mask_path)
            self.rows.append(
                {"category": category, "split": split, "label": label, "path": name,
                 "defect_type": label, "sha256": f"{number:064d}", "mask_path": mask_path,
                 "width": SIDE, "height": SIDE}
            )  # fmt: skip
        return self

    @property
    def manifest(self) -> pd.DataFrame:
        """What the pipelines call validated_manifest, as far as evaluation reads it."""
        return pd.DataFrame(self.rows)

    def scored(self) -> PredictionStore:
        """The store after a run of the model over everything."""
        score_images(self.model, self.manifest, self.images, self.store, self.config)
        return self.store


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An empty world, to be filled with `add`."""
    return World(tmp_path)


@pytest.fixture
def plate(world: World) -> World:
    """One category with everything: all splits, all labels, masks."""
    world.add("plate", "train", "good", 6).add("plate", "val", "good", 3)
    world.add("plate", "calibration", "good", 5).add("plate", "test", "good", 6)
    world.add("plate", "test", "defective", 4, mask=True)
    return world.add("plate", "test", "uncertain", 3)


@pytest.fixture
def cropped(world: World) -> World:
    """Four defective images behind a crop that loses the defect of one and half of another's."""
    world.model.preprocessing = PreprocessConfig(resize=96, image_size=64)  # keeps the inner 2/3
    world.add("plate", "train", "good", 3).add("plate", "test", "good", 2)
    world.add("plate", "test", "defective", 4, mask=True)
    masks = world.manifest["mask_path"].dropna()
    for path, columns in ((masks.iloc[0], slice(0, 8)), (masks.iloc[1], slice(50, 60))):
        truth = np.zeros((64, 64), np.uint8)
        truth[20:36, columns] = 255
        Image.fromarray(truth).save(world.images.path / path)
    return world
