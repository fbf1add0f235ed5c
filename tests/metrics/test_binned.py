"""The binned metrics against the exact ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from tests.metrics.blobs import blobs

from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.metrics.binned import (
    binned_metrics,
    image_histograms,
    pack,
    unpack,
)
from decodiff_pipeline.metrics.exact import PIXEL_METRICS, pixel_metrics

if TYPE_CHECKING:
    from pathlib import Path


def truncated(maps: np.ndarray) -> np.ndarray:
    """Scores that are the lower edge of their bin."""
    return (maps.view(np.int32) >> 16 << 16).view(np.float32)


def test_binned_metrics_are_close_to_the_exact_ones() -> None:
    for seed in range(3):
        maps, masks = blobs(seed, count=20, side=64)
        exact, binned = pixel_metrics(maps, masks), binned_metrics(image_histograms(maps, masks))
        for name in PIXEL_METRICS:
            assert binned[name] == pytest.approx(exact[name], abs=0.01), (name, seed)


def hard_maps(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores of which many are equal, below 0, not finite, or one number; on edges of bins."""
    maps, masks = blobs(9)
    if case == "ties":
        maps = np.round(maps)
    elif case == "edges":
        maps = truncated(maps)
    elif case == "negative":
        maps = truncated(maps - np.float32(0.5))
    elif case == "infinite":
        maps = truncated(maps)
        maps[0, :3], maps[-1, :2], maps[1, 3] = np.inf, np.inf, -np.inf
    elif case == "constant":
        maps[:] = 0.5
    return maps, masks


@pytest.mark.parametrize("case", ["ties", "edges", "negative", "infinite", "constant"])
def test_hard_scores_are_measured_as_the_exact_metrics_do(case: str) -> None:
    maps, masks = hard_maps(case)
    binned, exact = binned_metrics(image_histograms(maps, masks)), pixel_metrics(maps, masks)
    for name in set(PIXEL_METRICS) - {"pixel_ap"}:  # AP takes the pixels of a bin for mixed
        assert binned[name] == pytest.approx(exact[name], abs=1e-9), name


def test_zeros_of_both_signs_are_one_score() -> None:
    zeros = np.array([[[0.0, -0.0, -1.0]]], np.float32)
    histograms = image_histograms(zeros, [None])
    assert len(histograms.levels) == 2 and histograms.levels[1] == 0
    assert histograms.free.tolist() == [1, 2]


def test_weights_count_images_several_times() -> None:
    maps, masks = blobs(3)
    histograms = image_histograms(maps, masks)
    draws = np.random.default_rng(0).integers(0, len(maps), (4, len(maps)))
    draws[0] = len(maps) - 1  # no defect at all
    weights = np.stack([np.bincount(draw, minlength=len(maps)) for draw in draws])
    together = binned_metrics(histograms, weights)
    for i, draw in enumerate(draws):
        drawn = binned_metrics(image_histograms(maps[draw], masks[draw]))
        alone = binned_metrics(histograms, weights[i])
        for name in PIXEL_METRICS:
            assert together[name].shape == (4,) and alone[name].shape == ()
            assert together[name][i] == pytest.approx(drawn[name], nan_ok=True)
            assert alone[name] == pytest.approx(drawn[name], nan_ok=True)


def test_maps_may_differ_in_size() -> None:
    maps, masks = blobs(4)
    sizes = [(24, 24), (10, 24), (24, 7), (5, 5), (24, 24), (3, 24)]
    some = [one[:h, :w] for one, (h, w) in zip(maps, sizes, strict=True)]
    truth = [one[:h, :w] if one.any() else None for one, (h, w) in zip(masks, sizes, strict=True)]
    histograms = image_histograms(some, truth)
    assert histograms.pixels().sum(0).tolist() == [h * w for h, w in sizes]


def test_histograms_survive_parquet(tmp_path: Path) -> None:
    maps, masks = blobs(5)
    histograms = image_histograms(maps - np.float32(0.7), masks)
    histograms = histograms.placed([1, 2, 3, 5, 6, 7], 9)  # rows without pixels
    pack(histograms).to_parquet(tmp_path / "record.parquet")
    again = unpack(pd.read_parquet(tmp_path / "record.parquet"))
    for name in ("levels", "ends", "bins", "free", "defective", "overlap", "regions"):
        np.testing.assert_array_equal(getattr(again, name), getattr(histograms, name))


@pytest.mark.parametrize("case", ["no defect", "all defect", "no image"])
def test_nothing_to_measure_is_nan(case: str) -> None:
    maps, masks = blobs(7)
    masks[:] = case == "all defect"
    count = 0 if case == "no image" else len(maps)
    histograms = image_histograms(maps[:count], masks[:count])
    found = binned_metrics(histograms)
    assert tuple(found) == PIXEL_METRICS
    assert np.isnan(list(found.values())).all()


def test_wrong_maps_are_errors() -> None:
    maps, masks = blobs(8)
    with pytest.raises(ValueError, match="6 maps but 5 masks"):
        image_histograms(maps, masks[:5])
    with pytest.raises(ValueError, match="mask 0 is"):
        image_histograms(maps, masks[:, 1:])
    maps[3, 0, 0] = np.nan
    with pytest.raises(ModelError, match="NaN"):
        image_histograms(maps, masks)
