"""Smooth anomaly maps with defects, for metrics of pixels."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def blobs(seed: int, count: int = 6, side: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Smooth maps with defects that are brighter on average; a third of the images is good."""
    rng = np.random.default_rng(seed)
    maps = ndimage.gaussian_filter(rng.gamma(1, 1, (count, side, side)), (0, 2, 2))
    masks = np.zeros(maps.shape, bool)
    for image in range(0, count - count // 3):
        for _ in range(3):
            y, x = rng.integers(0, side - 5, 2)
            masks[image, y : y + rng.integers(1, 6), x : x + rng.integers(1, 6)] = True
    return (maps + 0.4 * masks * rng.random(maps.shape)).astype(np.float32), masks
