"""The drawn curves have the area and the shape of the exact ones, in few points."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import precision_recall_curve, roc_curve

from decodiff_pipeline.metrics.curves import curves
from decodiff_pipeline.metrics.exact import image_metrics, pixel_metrics

PIXEL_CURVES = {"pixel_roc", "pixel_pr", "pro"}


def scene(seed: int, separation: float) -> tuple[np.ndarray, np.ndarray]:
    """Twelve heavy-tailed maps of 48² with a square defect in every second one."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((12, 48, 48), bool)
    for image in range(0, 12, 2):
        y, x = rng.integers(0, 36, 2)
        masks[image, y : y + rng.integers(4, 12), x : x + rng.integers(4, 12)] = True
    maps = ndimage.gaussian_filter(rng.gamma(0.5, 1, masks.shape), (0, 1, 1))
    return (maps + separation * masks * rng.random((12, 1, 1))).astype(np.float32), masks


def drawn(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> dict[str, dict[str, list]]:
    """Curves of a scene."""
    return curves(maps, masks, maps.max((1, 2)), masks.any((1, 2)), limit)


@pytest.mark.parametrize("separation", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_areas_are_those_of_the_exact_metrics(separation: float, limit: float) -> None:
    maps, masks = scene(0, separation)
    found = drawn(maps, masks, limit)
    exact = pixel_metrics(maps, masks, limit=limit)
    exact |= image_metrics(maps.max((1, 2)), masks.any((1, 2)))
    for name in ("image_roc", "pixel_roc"):
        area = np.trapezoid(found[name]["tpr"], found[name]["fpr"])
        assert area == pytest.approx(exact[name.replace("roc", "auroc")], abs=0.002)
    area = np.trapezoid(found["pro"]["overlap"], found["pro"]["fpr"])
    assert area == pytest.approx(exact["pixel_aupro"] * limit, abs=0.002 * limit)
    area = np.trapezoid(found["pixel_pr"]["precision"], found["pixel_pr"]["recall"])
    precision, recall, _ = precision_recall_curve(masks.ravel(), maps.ravel())
    assert area == pytest.approx(-np.trapezoid(precision, recall), abs=0.002)


def test_curves_stay_close_everywhere() -> None:
    maps, masks = scene(1, 0.5)
    found = drawn(maps, masks)
    rate, hits, _ = roc_curve(masks.ravel(), maps.ravel(), drop_intermediate=False)
    thinned = np.interp(rate, found["pixel_roc"]["fpr"], found["pixel_roc"]["tpr"])
    assert np.abs(thinned - hits).mean() < 0.005
    for curve in found.values():
        x, y = curve.values()
        assert len(x) == len(y) <= 200
        assert np.all(np.diff(x) >= 0) and 0 <= min(y) <= max(y) <= 1


@pytest.mark.parametrize(
    ("case", "absent"),
    [
        ("no masks", PIXEL_CURVES),
        ("no good image", {"image_roc", "image_pr"}),
        ("no defect", PIXEL_CURVES | {"image_roc", "image_pr"}),
    ],
)
def test_what_cannot_be_measured_is_absent(case: str, absent: set[str]) -> None:
    maps, masks = scene(3, 0.5)
    defective = masks.any((1, 2))
    if case != "no good image":
        masks[:] = False
    defective = {"no good image": defective | True, "no defect": defective & False}.get(
        case, defective
    )
    found = curves(maps, masks, maps.max((1, 2)), defective)
    assert set(found) == (PIXEL_CURVES | {"image_roc", "image_pr"}) - absent


@pytest.mark.parametrize("score", [0.0, -1.5])
def test_constant_scores_draw_a_straight_line(score: float) -> None:
    maps, masks = scene(4, 0.5)
    maps[:] = score
    found = drawn(maps, masks)
    assert found["pixel_roc"] == {"fpr": [0, 1], "tpr": [0, 1]}
    assert found["pro"] == {"fpr": [0, 0.3], "overlap": [0, 0.3]}
    assert json.loads(json.dumps(found)) == found
