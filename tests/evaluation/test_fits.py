"""A bright spot in an image of any kind, followed through scoring and judgement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.evaluation.conftest import BrightnessModel

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.geometry import as_seen, seen, to_original
from decodiff_pipeline.evaluation.assessment import assess, plain_metrics
from decodiff_pipeline.evaluation.baselines import pca_baseline
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.evaluation.predictions import PredictionStore
from decodiff_pipeline.evaluation.protocols import (
    cropped_defects,
    mask_by,
)
from decodiff_pipeline.evaluation.scoring import score_images
from decodiff_pipeline.evaluation.thresholds import fit_thresholds
from decodiff_pipeline.reporting.figures import draw_figures

if TYPE_CHECKING:
    from pathlib import Path

FITS = [
    PreprocessConfig(96, 96),
    PreprocessConfig(128, 96),
    PreprocessConfig(96, 96, "letterbox"),
    PreprocessConfig(96, 96, "crop"),
    PreprocessConfig(128, 96, "tile"),
]
KINDS = {
    "grey": (180, 180), "rgb wide": (300, 120), "16 bit tall": (110, 260), "alpha": (150, 210),
}  # fmt: skip
every_fit = pytest.mark.parametrize("geometry", FITS, ids=lambda c: f"{c.fit}{c.resize}")


class Spots:
    """An image and a mask of each kind, the good ones without a spot, on disk."""

    def __init__(self, root: Path) -> None:
        self.images = ImageFolder(root / "raw")
        self.store = PredictionStore(root / "predictions")
        rows = []
        for number, (kind, size) in enumerate(KINDS.items()):
            for label in ("good", "defective"):
                rows.append(self._made(number, kind, size, label))
        for number in range(4):
            rows.append(self._made(10 + number, "grey", (180, 180), "good") | {"split": "train"})
        self.manifest = pd.DataFrame(rows)

    def _made(self, number: int, kind: str, size: tuple[int, int], label: str) -> dict[str, Any]:
        width, height = size
        pixels = np.random.default_rng(number).integers(10, 60, (height, width), dtype=np.uint8)
        mask = np.zeros((height, width), np.uint8)
        if label == "defective":
            # Off the centre, and inside what every crop leaves.
            top, left = round(0.4 * height), round(0.45 * width)
            mask[top : top + 26, left : left + 22] = 255
            pixels[mask > 0] += 160
        name, mask_name = f"{kind}-{label}-{number}.png", f"{kind}-{number}-mask.png"
        picture = {
            "grey": lambda: Image.fromarray(pixels),
            "rgb wide": lambda: Image.fromarray(np.stack([pixels] * 3, -1)),
            "16 bit tall": lambda: Image.fromarray(pixels.astype(np.uint16) * 257),
            "alpha": lambda: Image.fromarray(
                np.dstack([pixels, pixels, pixels, np.full_like(pixels, 255)])
            ),
        }[kind]()
        self.images.path.mkdir(parents=True, exist_ok=True)
        picture.save(self.images.path / name)
        if label == "defective":
            Image.fromarray(mask).save(self.images.path / mask_name)
        return {
            "category": "plate", "split": "test", "label": label, "defect_type": label,
            "path": name, "mask_path": mask_name if label == "defective" else None,
            "sha256": f"{number:063d}{len(label) % 10}", "width": width, "height": height,
        }  # fmt: skip

    def scored(self, geometry: PreprocessConfig) -> pd.DataFrame:
        """The index after a run of the model with this geometry."""
        model = BrightnessModel()
        model.preprocessing = geometry
        config = EvaluationConfig(batch_size=3)
        score_images(model, self.manifest, self.images, self.store, config)
        return self.store.index()


@pytest.fixture
def spots(tmp_path: Path) -> Spots:
    return Spots(tmp_path)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def centre(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(0)


@every_fit
def test_the_spot_is_found_at_its_pixels(spots: Spots, geometry: PreprocessConfig) -> None:
    index = spots.scored(geometry)
    assert index["score"][index["label"] == "good"].max() < 0.4
    for row in index[index["label"] == "defective"].itertuples():
        anomaly_map = spots.store.maps("plate")[row.row]
        mask, size = spots.images.read_mask(row.mask_path), (row.width, row.height)
        found = to_original(anomaly_map, size, geometry) > 0.45
        assert found.shape == mask.shape
        assert np.abs(centre(found) - centre(mask)).max() < 1, row.path
        assert overlap(found, mask) > 0.8, row.path
        small = mask_by("strict", mask, geometry)
        assert small.shape == anomaly_map.shape
        assert overlap(anomaly_map > 0.45, small) > 0.7, row.path
        picture = spots.store.reconstructions("plate")[row.row]
        assert np.array_equal(picture, as_seen(spots.images.read(row.path), geometry))


@every_fit
@pytest.mark.parametrize("protocol", ["strict", "released"])
@pytest.mark.parametrize("resolution", ["model", "native"])
def test_a_good_map_gets_good_marks(
    spots: Spots, geometry: PreprocessConfig, protocol: Any, resolution: Any
) -> None:
    spots.scored(geometry)
    config = EvaluationConfig(batch_size=3, protocol=protocol, resolution=resolution)
    baseline = pca_baseline(spots.manifest, spots.images, geometry, config)
    thresholds = fit_thresholds(spots.store, 0.05)
    metrics = assess(
        spots.store,
        spots.manifest,
        spots.images,
        thresholds,
        config,
        baseline={"pca": baseline.metrics},
    ).metrics
    row = metrics["categories"]["plate"]
    assert (metrics["protocol"], metrics["resolution"]) == (protocol, resolution)
    assert row["image_auroc"] == 1
    assert row["n_relabelled"] == 0
    # Masks that grow by a pixel all round hold some that are dark.
    grown = protocol == "released" and resolution == "model"
    assert row["pixel_auroc"] > (0.97 if grown else 0.999)
    assert row["pixel_ap"] > (0.8 if grown else 0.97)
    assert (metrics["cropped_share"] > 0) == geometry.crops
    assert row["cropped_defects"] == ({"pixel_share": 0, "n_images": 0} if geometry.crops else None)
    assert baseline.metrics["plate"]["pixel_auroc"] is not None


@pytest.mark.parametrize("protocol", ["strict", "released"])
def test_native_leaves_out_what_the_model_did_not_see(spots: Spots, protocol: Any) -> None:
    geometry = PreprocessConfig(96, 96, "crop")
    index = spots.scored(geometry)
    config = EvaluationConfig(protocol=protocol, resolution="native")
    before = plain_metrics(spots.store, spots.images, config)
    for row in index[index["label"] == "defective"].itertuples():
        path = spots.images.path / row.mask_path
        mask = np.array(Image.open(path))
        mask[~seen((row.width, row.height), geometry)] = 255  # all of the rest a defect
        Image.fromarray(mask).save(path)
    after = plain_metrics(spots.store, spots.images, config)
    for name in ("pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro"):
        assert after["categories"]["plate"][name] == before["categories"]["plate"][name]
    assert cropped_defects(index, spots.images, geometry)["pixel_share"] > 0.5


def test_figures_of_images_of_every_shape(spots: Spots) -> None:
    config = EvaluationConfig(gallery_size=4)
    for geometry in FITS[2:]:
        index = spots.scored(geometry)
        thresholds = {"categories": {}}
        figures = draw_figures(index, spots.store, spots.images, thresholds, config)
        shown = [image.get_array().shape[:2] for axis in figures["plate"].axes
                 for image in axis.get_images()]  # fmt: skip
        assert {np.shape(spots.store.maps("plate")[row]) for row in index["row"]} == set(shown)
