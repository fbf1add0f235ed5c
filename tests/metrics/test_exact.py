"""Exact metrics against an oracle that walks through every threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from tests.metrics.blobs import blobs

from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.metrics import threshold_counts
from decodiff_pipeline.metrics.exact import (
    IMAGE_METRICS,
    PIXEL_METRICS,
    image_metrics,
    pixel_metrics,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

EXACT = {"rel": 0, "abs": 1e-9}


def oracle(
    maps: Sequence[np.ndarray], masks: Sequence[np.ndarray], limit: float
) -> dict[str, float]:
    """The definitions, one threshold at a time, in plain loops."""
    regions = []
    for image, mask in enumerate(masks):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [maps[image][labels == number] for number in range(1, count + 1)]
    bad = np.concatenate([one[mask] for one, mask in zip(maps, masks, strict=True)])
    free = np.concatenate([one[~mask] for one, mask in zip(maps, masks, strict=True)])
    points = [(0.0, 0.0, 0.0, 1.0)]  # false-positive rate, region overlap, recall, precision
    for threshold in sorted({*bad.tolist(), *free.tolist()}, reverse=True):
        true, false = (bad >= threshold).sum(), (free >= threshold).sum()
        overlap = [(region >= threshold).mean() for region in regions]
        points.append((false / len(free), np.mean(overlap), true / len(bad), true / (true + false)))
    rate, overlap, recall, precision = np.array(points).T
    f1 = [2 * p * r / (p + r) if p + r else 0.0 for p, r in zip(precision, recall, strict=True)]
    return {
        "pixel_auroc": area(rate, recall, 1.0),
        "pixel_ap": float((np.diff(recall) * precision[1:]).sum()),
        "pixel_f1max": max(f1),
        "pixel_aupro": area(rate, overlap, limit) / limit,
        "pixel_aupro_5": area(rate, overlap, 0.05) / 0.05,
    }


def area(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Trapezoids from 0 to the limit, the last one cut there."""
    total = 0.0
    for x0, x1, y0, y1 in zip(x, x[1:], y, y[1:], strict=False):
        if x1 > limit:
            cut = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            return float(total + (limit - x0) * (y0 + cut) / 2)
        total += (x1 - x0) * (y0 + y1) / 2
    return float(total)


@pytest.mark.parametrize("limit", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_pixel_metrics_equal_the_definitions(seed: int, limit: float) -> None:
    maps, masks = blobs(seed)
    assert pixel_metrics(maps, masks, limit=limit) == pytest.approx(
        oracle(maps, masks, limit), **EXACT
    )


@pytest.mark.parametrize("case", ["ties 0", "ties 1", "ties 2", "extremes", "outlier"])
def test_pixel_metrics_are_exact_for_hard_scores(case: str) -> None:
    maps, masks = blobs(7)
    if case.startswith("ties"):
        maps = maps.round(int(case[-1]))
    elif case == "outlier":
        maps[-1, 0, 0] = 1e6
    else:
        maps -= np.float32(0.9)
        maps[0, :3] = [[0.0], [-0.0], [1e-44]]
        maps[1, :2] = [[np.inf], [-np.inf]]
        masks[0, :3, :9] = masks[1, :2, :9] = True
    assert pixel_metrics(maps, masks) == pytest.approx(oracle(maps, masks, 0.3), **EXACT)


def test_diagonal_neighbours_are_one_region() -> None:
    mask = np.zeros((1, 4, 4), bool)
    mask[0, 0, 0] = mask[0, 1, 1] = mask[0, 3, 3] = True
    maps = np.full((1, 4, 4), 0.5, np.float32)
    maps[0, 0, 0] = maps[0, 3, 3] = 1  # half of the first region, all of the second
    maps[0, 1, 1] = 0
    assert pixel_metrics(maps, mask, limit=0.5)["pixel_aupro"] == pytest.approx(0.75)


def test_chunks_and_threads_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, masks = blobs(3, count=12)
    whole = pixel_metrics(maps, masks, workers=1)
    monkeypatch.setattr(threshold_counts, "MAX_CHUNK_PIXELS", 2 * maps[0].size)
    assert pixel_metrics(maps, masks, workers=3) == whole


def test_maps_and_masks_may_be_lazy() -> None:
    maps, masks = blobs(4)
    lazy = [mask if mask.any() else None for mask in masks]
    assert pixel_metrics(list(maps), lazy) == pixel_metrics(maps, masks)


def test_maps_may_differ_in_size(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, masks = blobs(10)
    sizes = [(24, 24), (2, 24), (9, 13), (1, 1), (24, 3), (24, 24)]
    cut = [one[:h, :w] for one, (h, w) in zip(maps, sizes, strict=True)]
    truth = [one[:h, :w] for one, (h, w) in zip(masks, sizes, strict=True)]
    expected = oracle(cut, truth, 0.3)
    assert pixel_metrics(cut, truth) == pytest.approx(expected, **EXACT)
    monkeypatch.setattr(threshold_counts, "MAX_CHUNK_PIXELS", 100)  # less than the first map
    assert pixel_metrics(cut, truth, workers=2) == pytest.approx(expected, **EXACT)


def test_pixel_metrics_need_both_kinds_of_pixels() -> None:
    maps, masks = blobs(5)
    nothing = dict.fromkeys(PIXEL_METRICS)
    assert pixel_metrics(maps, np.zeros_like(masks)) == nothing
    assert pixel_metrics(maps, np.ones_like(masks)) == nothing
    assert pixel_metrics(maps[:0], masks[:0]) == nothing


@pytest.mark.parametrize("defective", [True, False])
def test_nan_in_a_map_is_an_error(defective: bool) -> None:
    maps, masks = blobs(6)
    maps[0][tuple(np.argwhere(masks[0] == defective)[0])] = np.nan
    with pytest.raises(ModelError, match="NaN"):
        pixel_metrics(maps, masks)


def test_nan_as_an_image_score_is_an_error() -> None:
    with pytest.raises(ModelError, match="NaN"):
        image_metrics(np.array([0.1, np.nan]), np.array([False, True]))


def test_wrong_shapes_and_limits_are_errors() -> None:
    maps, masks = blobs(6)
    with pytest.raises(ValueError, match="6 maps but 5 masks"):
        pixel_metrics(maps, masks[:5])
    with pytest.raises(ValueError, match="mask 0 is"):
        pixel_metrics(maps, masks[:, 1:])
    with pytest.raises(ValueError, match="limit is 0"):
        pixel_metrics(maps, masks, limit=0)


def test_image_metrics_by_hand() -> None:
    scores = np.array([0.1, 0.4, 0.35, 0.8], np.float32)
    found = image_metrics(scores, np.array([False, False, True, True]))
    assert found["image_auroc"] == pytest.approx(3 / 4)
    assert found["image_ap"] == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    assert found["image_f1max"] == pytest.approx(4 / 5)


@pytest.mark.parametrize("decimals", [0, 1, 9])
def test_image_metrics_are_those_of_scikit_learn(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    defective = rng.random(200) < 0.3
    scores = (rng.normal(size=200) + defective).round(decimals)
    precision, recall, _ = precision_recall_curve(defective, scores)
    found = image_metrics(scores, defective)
    assert found["image_auroc"] == pytest.approx(roc_auc_score(defective, scores), **EXACT)
    assert found["image_ap"] == pytest.approx(average_precision_score(defective, scores), **EXACT)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert found["image_f1max"] == pytest.approx(f1.max(), **EXACT)


@pytest.mark.parametrize("labels", [[], [True], [False, False]])
def test_image_metrics_need_both_kinds_of_images(labels: list[bool]) -> None:
    assert image_metrics(np.zeros(len(labels)), np.array(labels)) == dict.fromkeys(IMAGE_METRICS)
