"""Exact pixel metrics beside the usual loop over 200 thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from benchmarks.timing import side_by_side
from decodiff_pipeline.evaluation.metrics import pixel_metrics

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE = 256
MAPS = 100
THRESHOLDS = 200
LIMIT = 0.3
ROUNDS = 3  # the loop takes a quarter of a minute


def blobs(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Heavy-tailed, smooth maps; two of three images have one to three round defects.

    Returns:
        float32 maps and bool masks, (count, 256, 256).
    """
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[:SIDE, :SIDE]
    maps = np.empty((count, SIDE, SIDE), np.float32)
    masks = np.zeros(maps.shape, bool)
    for image in range(count):
        texture = ndimage.zoom(rng.gamma(2, 0.05, (SIDE // 8, SIDE // 8)), 8, order=1)
        for _ in range(rng.integers(1, 4) if image % 3 else 0):
            y, x = rng.integers(20, SIDE - 20, 2)
            disc = (ys - y) ** 2 + (xs - x) ** 2 < rng.integers(5, 30) ** 2
            masks[image] |= disc
            texture += disc * rng.uniform(0, 0.3)
        maps[image] = ndimage.gaussian_filter(texture + rng.gamma(1, 0.02, texture.shape), 2)
    return maps, masks


def pro_loop(maps: np.ndarray, masks: np.ndarray) -> float:
    """AUPRO the way published code computes it, one of 200 linear thresholds at a time.

    Source: the procedure that DeCo-Diff's and many other repositories follow: at each threshold
    every mask is labelled, the overlap of every region and the false-positive rate are taken, and
    the area up to the limit is divided by the largest rate found below it.
    """
    rates, overlaps = [], []
    for threshold in np.linspace(maps.min(), maps.max(), THRESHOLDS + 1)[:-1]:
        detected = maps > threshold
        found = []
        for one, mask in zip(detected, masks, strict=True):
            labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
            for number, window in enumerate(ndimage.find_objects(labels, count), start=1):
                region = labels[window] == number
                found.append((one[window] & region).sum() / region.sum())
        overlaps.append(np.mean(found))
        rates.append((detected & ~masks).sum() / (~masks).sum())
    below = np.array(rates) < LIMIT
    x, y = np.array(rates)[below][::-1], np.array(overlaps)[below][::-1]
    return float(np.trapezoid(y, x / x.max()))


def run() -> list[dict[str, Any]]:
    """Four exact metrics against one approximate one, on 100 maps of 256²."""
    return [
        side_by_side(
            "pixel_metrics_vs_pro_loop_100",
            exact,
            approximate,
            peer_name="AUPRO alone, by 200 thresholds, in one thread",
            images=MAPS,
            rounds=ROUNDS,
        )
    ]


def exact() -> Callable[[], object]:
    """Pixel AUROC, AP, F1max and AUPRO, every distinct score a threshold."""
    maps, masks = blobs(MAPS)
    return lambda: pixel_metrics(maps, masks, limit=LIMIT)


def approximate() -> Callable[[], object]:
    """AUPRO by :func:`pro_loop`."""
    maps, masks = blobs(MAPS)
    return lambda: pro_loop(maps, masks)
