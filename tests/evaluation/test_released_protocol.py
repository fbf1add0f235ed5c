"""The released protocol: against the released code's numbers, and against a plain rebuild."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.evaluation.protocols import released_mask
from decodiff_pipeline.metrics.exact import image_metrics, pixel_metrics
from decodiff_pipeline.metrics.released_aupro import (
    released_aupro,
    released_pixel_metrics,
)

FIXTURE = Path(os.environ.get("DECODIFF_TEST_DATA", "absent")).parent / "parity" / "fixture.npz"
ORDER = (
    "pixel_auroc",
    "pixel_aupro",
    "pixel_f1max",
    "pixel_ap",
    "image_auroc",
    "image_ap",
    "image_f1max",
)


@pytest.mark.skipif(
    not FIXTURE.is_file(), reason="DECODIFF_TEST_DATA names no folder beside parity/fixture.npz"
)
@pytest.mark.parametrize(
    "name", ["anomaly_geometric", "anomaly_aritmetic", "latent_discrepancy", "image_discrepancy"]
)
def test_the_seven_recorded_metrics(name: str) -> None:
    with np.load(FIXTURE) as recorded:
        maps, expected = recorded[f"maps_out_{name}"], recorded[f"metrics_{name}"]
        masks = recorded["maps_segmentation"] > 0
    measured = released_pixel_metrics(maps, masks)
    measured |= image_metrics(maps.max((1, 2)), masks.any((1, 2)))
    assert [measured[metric] for metric in ORDER] == pytest.approx(expected, abs=1e-5)


def plain_aupro(maps: np.ndarray, masks: np.ndarray, limit: float) -> float:
    """The formula, threshold by threshold and region by region."""
    curve = []
    for threshold in np.arange(maps.min(), maps.max(), (maps.max() - maps.min()) / 200):
        detected = maps > threshold
        overlaps = []
        for hit, mask in zip(detected, masks, strict=True):
            labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
            overlaps += [hit[labels == region].mean() for region in range(1, count + 1)]
        rate = detected[~masks].mean()
        if rate < limit:
            curve.append((rate, np.mean(overlaps)))
    largest = max(rate for rate, _ in curve)
    area = 0.0
    for (right, high), (left, low) in itertools.pairwise(curve):
        area += (right - left) / largest * (high + low) / 2
    return area


def test_aupro_is_that_of_a_plain_rebuild() -> None:
    rng = np.random.default_rng(0)
    masks = ndimage.zoom(rng.random((5, 4, 4)), (1, 8, 8), order=1) > 0.75
    masks[3] = False
    maps = ndimage.gaussian_filter(rng.random((5, 32, 32)) + 0.3 * masks, (0, 1, 1))
    maps = maps.astype(np.float32)
    given = [mask if mask.any() else None for mask in masks]
    assert len([mask for mask in given if mask is not None]) >= 3
    limits = 0.3, 0.05, 1.0
    expected = [plain_aupro(maps, masks, limit) for limit in limits]
    assert released_aupro(maps, given, *limits) == pytest.approx(expected, abs=1e-6)
    # A mask without a defect is the same as none.
    assert released_aupro(maps, masks, *limits) == pytest.approx(expected, abs=1e-6)
    measured = released_pixel_metrics(maps, given)
    assert measured["pixel_aupro"] == pytest.approx(expected[0], abs=1e-6)
    assert measured["pixel_aupro_5"] == pytest.approx(expected[1], abs=1e-6)


def test_one_outlier_pixel_ruins_the_released_aupro_and_not_the_exact_one() -> None:
    rng = np.random.default_rng(1)
    maps = rng.random((2, 32, 32), np.float32)
    masks = np.zeros((2, 32, 32), bool)
    masks[0, 8:16, 8:16] = True
    maps[0, 8:16, 8:16] += 0.5
    maps[1, 0, 0] = 1000
    assert released_aupro(maps, masks, 0.3) == [0]
    exact = pixel_metrics(maps, masks)["pixel_aupro"]
    assert exact is not None
    assert exact > 0.3


@pytest.mark.parametrize(
    "case", ["constant", "no defect", "no false positive", "all defect", "no point below the limit"]
)
def test_where_the_released_code_has_no_number_there_is_none(case: str) -> None:
    maps = np.zeros((2, 8, 8), np.float32)
    masks = np.zeros((2, 8, 8), bool)
    masks[0, 2:4, 2:4] = True
    if case == "no false positive":
        maps[0, 2:4, 2:4] = 1
    elif case == "no point below the limit":
        maps[:] = 1
        maps[0, 2, 2] = 0
    elif case != "constant":
        maps[1] = np.arange(64).reshape(8, 8)
        masks[:] = case == "all defect"
    assert released_aupro(maps, masks, 0.3, 0.05) == [None, None]
    assert released_pixel_metrics(maps, masks)["pixel_aupro"] is None
    assert released_pixel_metrics(maps, masks)["pixel_aupro_5"] is None


def test_a_defect_grows_and_the_margin_is_cropped() -> None:
    geometry = PreprocessConfig(resize=288, image_size=256)
    mask = np.zeros((1024, 1024), bool)
    mask[512:540, 512:540] = True
    grown = released_mask(mask, geometry)
    assert grown.shape == (256, 256)
    ys, xs = np.nonzero(grown)
    # 512 / 1024 · 288 - 16 = 128, and 28 pixels become 7.9: the edges of the grown square
    # lie up to the two pixels outside that the bicubic kernel reaches.
    assert 126 <= ys.min() <= 128 and 135 <= ys.max() <= 137
    assert 126 <= xs.min() <= 128 and 135 <= xs.max() <= 137
    assert grown.sum() > (28 * 288 / 1024) ** 2
    mask[:] = False
    mask[:40, :] = True  # 40 / 1024 · 288 = 11 of the 16 rows that are cropped off
    assert not released_mask(mask, geometry).any()
