"""The result of scoring one image, and the PNG of its anomaly map."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from decodiff_pipeline.deco.config import UNKNOWN

if TYPE_CHECKING:
    from decodiff_pipeline.deco.detections import Detection

MAP_SCALES = {0: 0, 8: 255, 16: 65535}  # bits of the PNG: its largest value


@dataclass(frozen=True)
class Answer:
    """The result of scoring one image."""

    size: tuple[int, int]  # width and height of the image in pixels
    category: str = UNKNOWN  # given or recognised
    # Probability of a recognised category within 0…1; ``None`` if the category was given.
    category_certainty: float | None = None
    # ``"defective"``, ``"good"``, ``None`` without a threshold, or ``"unknown"`` if no category was
    # recognised.
    decision: str | None = UNKNOWN
    # Anomaly score within 0…1; higher is more anomalous. ``None`` if no category was recognised.
    score: float | None = None
    # Smallest score of a defective image; ``None`` if the category had no calibration images and
    # no threshold was set.
    threshold: float | None = None
    # Origin of the threshold: ``"request"``, ``"override"``, ``"fitted"``, ``"fitted on labels"``
    # (by costs), or ``None`` without a threshold.
    threshold_from: str | None = None
    # Grey PNG of the anomaly map at the size of the image, 0…1 as 0…255 or 0…65535, 0 outside the
    # model's crop; ``None`` if no map was requested.
    map: bytes | None = None
    # Smallest map value of a flagged pixel; ``None`` if the category had no calibration images.
    pixel_threshold: float | None = None
    # Connected flagged regions in pixels of the image, the largest first; ``None`` without a pixel
    # threshold.
    detections: list[Detection] | None = None


def encode_map(anomaly_map: np.ndarray, bits: int) -> bytes:
    """Encode a map as a grey PNG: value · (2^bits - 1), rounded.

    Args:
        anomaly_map: Float (height, width) within 0…1.
        bits: 8 or 16.
    """
    kind = np.uint8 if bits == 8 else np.uint16  # noqa: PLR2004
    grey = np.rint(np.clip(anomaly_map, 0, 1) * MAP_SCALES[bits]).astype(kind)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="PNG")
    return buffer.getvalue()
