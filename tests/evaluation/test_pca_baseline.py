"""The PCA baseline, on small pictures and on the real ones it was published for."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.manifest import DataConfig, build_manifest
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.evaluation.baselines import pca_baseline, reconstruction_errors
from decodiff_pipeline.evaluation.config import EvaluationConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.evaluation.conftest import World

PUBLISHED = 0.01  # how close the published figures must come
GEOMETRY = PreprocessConfig(resize=256, image_size=256)


def test_what_lies_in_the_span_of_the_good_images_has_no_error() -> None:
    rng = np.random.default_rng(0)
    basis = rng.random((5, 64, 64)).astype(np.float32)
    weights = rng.random((40, 5)).astype(np.float32)
    good = np.tensordot(weights, basis, 1)
    new = np.tensordot(rng.random((3, 5)).astype(np.float32), basis, 1)
    new[2, 30:34, 30:34] += 1
    errors = next(reconstruction_errors(good, [new])).max((1, 2))
    assert errors[:2].max() < 1e-3
    assert errors[2] > 0.5


def test_the_baseline_finds_bright_squares(plate: World) -> None:
    baseline = pca_baseline(plate.manifest, plate.images, plate.model.preprocessing, plate.config)
    row = baseline.metrics["plate"]
    assert row["n_fitted"] == 14  # train, val and calibration
    assert row["image_auroc"] == 1
    assert row["pixel_auroc"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "category", "image_auroc", "pixel_ap"),
    [
        ("magnetic_tile", "magnetic_tile", 0.734, 0.144),
        ("mvtec", "toothbrush", 1.000, 0.700),
        ("crackforest", "pavement", 0.754, 0.219),
    ],
)
def test_published_baselines_with_masks(
    real_data: Callable[[str], Path],
    folder: str,
    category: str,
    image_auroc: float,
    pixel_ap: float,
) -> None:
    images = ImageFolder(real_data(folder))
    manifest = build_manifest(images, DataConfig(layout="mvtec"))
    row = pca_baseline(manifest, images, GEOMETRY, EvaluationConfig()).metrics[category]
    assert row["image_auroc"] == pytest.approx(image_auroc, abs=PUBLISHED)
    assert row["pixel_ap_touched_masks"] == pytest.approx(pixel_ap, abs=PUBLISHED)
    assert row["pixel_ap"] < row["pixel_ap_touched_masks"]  # grown masks flatter


@pytest.mark.slow
def test_published_baselines_of_solar_cells() -> None:
    package = importlib.util.find_spec("elpv_dataset")
    if package is None or package.origin is None:
        pytest.skip("elpv-dataset is not installed: pip install elpv-dataset")
    images = ImageFolder(Path(package.origin).parent / "data")
    manifest = build_manifest(images, DataConfig(layout="elpv"))
    table = pca_baseline(manifest, images, GEOMETRY, EvaluationConfig()).metrics
    assert table["mono"]["image_auroc"] == pytest.approx(0.916, abs=PUBLISHED)
    assert table["poly"]["image_auroc"] == pytest.approx(0.686, abs=PUBLISHED)
