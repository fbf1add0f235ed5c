"""Detections: connected regions of a map above the pixel threshold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from decodiff_pipeline.deco.preprocess import EIGHT_CONNECTED


class Detection(NamedTuple):
    """A connected region of flagged pixels.

    Attributes:
        x: Left column of the bounding box.
        y: Top row of the bounding box.
        width: Width of the bounding box in pixels.
        height: Height of the bounding box in pixels.
        area: Number of flagged pixels.
        mean_score: Mean of the map over the flagged pixels, within 0…1.
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
    """The 8-connected regions of a map at or above a threshold, the largest first.

    Args:
        anomaly_map: Float (height, width) within 0…1, at the size of the image.
        pixel_threshold: Pixels with at least this value are flagged.
        min_area: Minimum number of pixels of a detection.
    """
    labels, _ = ndimage.label(anomaly_map >= pixel_threshold, structure=EIGHT_CONNECTED)
    detections = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        values = anomaly_map[rows, columns][labels[rows, columns] == number]
        if len(values) >= min_area:
            detections.append(
                Detection(
                    *(columns.start, rows.start),
                    *(columns.stop - columns.start, rows.stop - rows.start),
                    *(len(values), round(float(values.mean(dtype=np.float64)), 6)),
                )
            )
    return sorted(detections, key=lambda detection: -detection.area)
