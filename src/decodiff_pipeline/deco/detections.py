"""Where a map exceeds its pixel threshold, and by how much: its connected regions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from decodiff_pipeline.deco.preprocess import EIGHT_CONNECTED


class Detection(NamedTuple):
    """A connected region of flagged pixels.

    Attributes:
        x: Column of its leftmost pixel.
        y: Row of its topmost pixel.
        width: Of its bounding box in pixels.
        height: Of its bounding box in pixels.
        area: Flagged pixels in it.
        mean_score: Mean of the map over these pixels, within 0…1.
    """

    x: int
    y: int
    width: int
    height: int
    area: int
    mean_score: float


def find_detections(
    anomaly_map: np.ndarray, pixel_threshold: float, min_area: int = 1
) -> list[Detection]:
    """The 8-connected regions of a map from a threshold on, the largest first.

    Args:
        anomaly_map: Float (height, width) within 0…1, in the image's own pixels.
        pixel_threshold: A pixel is flagged from this value on.
        min_area: Regions of fewer pixels are left out.
    """
    labels, _ = ndimage.label(anomaly_map >= pixel_threshold, structure=EIGHT_CONNECTED)
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        values = anomaly_map[rows, columns][labels[rows, columns] == number]
        if len(values) >= min_area:
            found.append(
                Detection(
                    *(columns.start, rows.start),
                    *(columns.stop - columns.start, rows.stop - rows.start),
                    *(len(values), round(float(values.mean(dtype=np.float64)), 6)),
                )
            )
    return sorted(found, key=lambda one: -one.area)
