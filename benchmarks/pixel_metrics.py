"""Pixel metrics, exact and binned, beside the usual loop over thresholds and beside adeval.

adeval is an optional peer: ``pip install adeval==1.1.0 opencv-python-headless``.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from benchmarks.timing import side_by_side
from decodiff_pipeline.metrics.binned import binned_metrics, image_histograms
from decodiff_pipeline.metrics.bootstrap import RESAMPLES, Sample, mean_intervals
from decodiff_pipeline.metrics.exact import image_metrics, pixel_metrics

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE = 256
MAPS = 100
MANY_MAPS = 1725  # as many as MVTec AD has test images, in one category
THRESHOLDS = 200
LIMIT = 0.3
ROUNDS = 3  # the loop takes a quarter of a minute
ADEVAL = ("pixel_auroc", "pixel_ap", "pixel_aupro")  # what it computes
ADEVAL_NAME = "adeval 1.1.0: AUROC, AP and AUPRO by 1,000 thresholds, in one thread"


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
    """On 100 maps of 256² in memory, and on 1,725 in a file."""
    with tempfile.TemporaryDirectory() as name:
        few, many = Path(name) / "few", Path(name) / "many"
        write(few, MAPS)
        write(many, MANY_MAPS)
        return [
            side_by_side(
                "pixel_metrics_vs_pro_loop_100",
                partial(exact, few, ("pixel_aupro",)),
                partial(approximate, few),
                peer_name="AUPRO alone, by 200 thresholds, in one thread",
                images=MAPS,
                rounds=ROUNDS,
            ),
            *(beside_adeval(few, many) if has_adeval() else []),
            side_by_side(
                "bootstrap_1725",
                partial(bootstrap, many),
                partial(one_resample, many),
                peer_name="the exact metrics of one resample's maps after another",
                images=RESAMPLES,
                peer_images=1,
                unit="resamples/s",
                rounds=ROUNDS,
            ),
        ]


def beside_adeval(few: Path, many: Path) -> list[dict[str, Any]]:
    """Exact and binned metrics, of few maps and of many."""
    return [
        side_by_side(
            name,
            partial(ours, folder, ADEVAL),
            partial(adeval, folder),
            peer_name=ADEVAL_NAME,
            images=images,
        )
        for name, ours, folder, images in (
            ("pixel_metrics_vs_adeval_100", exact, few, MAPS),
            ("binned_metrics_vs_adeval_100", binned, few, MAPS),
            ("pixel_metrics_1725", exact, many, MANY_MAPS),
            ("binned_metrics_1725", binned, many, MANY_MAPS),
        )
    ]


def has_adeval() -> bool:
    """Whether the optional peer is there; says so where it is not."""
    found = all(importlib.util.find_spec(name) for name in ("adeval", "cv2"))
    if not found:
        sys.stderr.write("no records beside adeval: it is not installed\n")
    return found


def write(folder: Path, count: int) -> None:
    """Store maps and masks as arrays."""
    folder.mkdir()
    maps, masks = blobs(count)
    np.save(folder / "maps.npy", maps)
    np.save(folder / "masks.npy", masks)


def stored(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Memory-mapped maps and masks."""
    return np.load(folder / "maps.npy", "r"), np.load(folder / "masks.npy", "r")


def exact(folder: Path, names: tuple[str, ...]) -> Callable[[], np.ndarray]:
    """All pixel metrics, every distinct score a threshold; some of them to compare."""
    maps, masks = stored(folder)

    def measure() -> np.ndarray:
        found = pixel_metrics(maps, masks, limit=LIMIT)
        return np.array([found[name] for name in names])

    return measure


def binned(folder: Path, names: tuple[str, ...]) -> Callable[[], np.ndarray]:
    """All pixel metrics from a histogram an image; some of them to compare."""
    maps, masks = stored(folder)

    def measure() -> np.ndarray:
        found = binned_metrics(image_histograms(maps, masks), limit=LIMIT)
        return np.array([found[name] for name in names])

    return measure


def approximate(folder: Path) -> Callable[[], np.ndarray]:
    """AUPRO by :func:`pro_loop`."""
    maps, masks = (np.array(array) for array in stored(folder))
    return lambda: np.array([pro_loop(maps, masks)])


def adeval(folder: Path) -> Callable[[], np.ndarray]:
    """AUROC, AP and AUPRO by adeval."""
    np.trapz = np.trapezoid  # which numpy 2.4 has under the new name alone
    from adeval import auroc_aupr_aupro

    maps, masks = stored(folder)
    masks = masks.view(np.uint8)
    return lambda: np.array(auroc_aupr_aupro(maps, masks))


def bootstrap(folder: Path) -> Callable[[], object]:
    """Intervals of all image and pixel metrics, from histograms made before."""
    maps, masks = stored(folder)
    sample = Sample(maps.max((1, 2)), masks.any((1, 2)), image_histograms(maps, masks))
    return lambda: mean_intervals([sample], limit=LIMIT)


def one_resample(folder: Path) -> Callable[[], object]:
    """The metrics of as many images, drawn with replacement."""
    maps, masks = stored(folder)
    drawn = np.random.default_rng(0).integers(0, len(maps), len(maps))
    scores, defective = maps.max((1, 2))[drawn], masks.any((1, 2))[drawn]
    chosen = [[array[i] for i in drawn] for array in (maps, masks)]
    return lambda: image_metrics(scores, defective) | pixel_metrics(*chosen, limit=LIMIT)
