"""What the server says of one image, and the picture of its map."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from decodiff_pipeline.deco.detections import Detection

MAP_SCALES = {0: 0, 8: 255, 16: 65535}  # bits of the PNG: its largest value


@dataclass(frozen=True)
class Answer:
    """What the model says of one image."""

    # Anomaly score within 0…1; higher is more anomalous. ``None`` where the image is of no category
    # that the model knows.
    score: float | None
    # score from which on the image counts as defective; ``None`` where the category had no
    # calibration images and nobody set one
    threshold: float | None
    # where that is from: ``"request"``, ``"override"``, ``"fitted"``, ``"fitted on labels"`` (by
    # costs), or ``None`` without a threshold
    threshold_from: str | None
    # ``"defective"``, ``"good"``, ``None`` without a threshold, or ``"unknown"`` where the image is
    # of no category
    decision: str | None
    # PNG of the anomaly map in the image's own size, grey, 0…1 as 0…255 or 0…65535; ``None`` if no
    # map was asked for. What the model's crop cuts off is 0.
    map: bytes | None
    size: tuple[int, int]  # width and height of the image in pixels
    # value of the map from which on a pixel is flagged; ``None`` where the category had no
    # calibration images
    pixel_threshold: float | None = None
    # connected flagged regions in the image's own pixels, the largest first; ``None`` without a
    # pixel threshold
    detections: list[Detection] | None = None
    category: str | None = None  # as given or as recognised, or ``"unknown"``
    # probability of a recognised category within 0…1; ``None`` where the category was given
    category_certainty: float | None = None


def encode_map(anomaly_map: np.ndarray, bits: int) -> bytes:
    """Grey PNG of a map: value · (2^bits - 1), rounded.

    Args:
        anomaly_map: Float (height, width) within 0…1.
        bits: 8 or 16.
    """
    kind = np.uint8 if bits == 8 else np.uint16  # noqa: PLR2004
    grey = np.rint(np.clip(anomaly_map, 0, 1) * MAP_SCALES[bits]).astype(kind)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="PNG")
    return buffer.getvalue()
