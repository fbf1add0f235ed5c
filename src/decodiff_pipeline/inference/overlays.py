"""Draws overlays: the image with its heat map, the outlines of flagged pixels, and boxes."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decodiff_pipeline.deco.detections import Detection

OUTLINE = (0, 255, 255)  # not among the colours of the heat map
BOX = (0, 255, 0)
LINE_SHARE = 250  # shorter side of the image / width of a line, which is at least a pixel
OPACITY = 0.75  # maximum opacity of the heat map
LARGEST_SIDE = 65_000  # pixels; JPEG allows 65,535
QUALITY = 90


def draw_overlay(
    image: Image.Image,
    anomaly_map: np.ndarray,
    pixel_threshold: float | None,
    detections: Sequence[Detection] = (),
) -> Image.Image:
    """Draw the heat map, the outline of flagged pixels, and the boxes of detections on an image.

    The colour scale is the same for all images of a category: it ends at twice the pixel
    threshold, or at 1 without one.

    Args:
        image: "L" or "RGB".
        anomaly_map: Float (height, width) within 0…1, of the image's size.
        pixel_threshold: Pixels with at least this value are flagged; ``None`` draws no outline.

    Returns:
        RGB, of the image's size.
    """
    full = min(2 * pixel_threshold, 1.0) if pixel_threshold else 1.0
    levels = np.clip(anomaly_map * (255 / full), 0, 255).astype(np.uint8)
    heat = Image.fromarray(levels).convert("P")
    heat.putpalette(_palette())
    opacity = Image.fromarray(levels).point([round(OPACITY * level) for level in range(256)])
    overlay = Image.composite(heat.convert("RGB"), image.convert("RGB"), opacity)
    if pixel_threshold is not None:
        overlay.paste(OUTLINE, mask=_outline(anomaly_map >= pixel_threshold))
    draw, width = ImageDraw.Draw(overlay), _line_width(anomaly_map)
    for detection in detections:
        # Outside of the outline, within the image.
        left, top = max(0, detection.x - 2 * width), max(0, detection.y - 2 * width)
        right = min(overlay.width, detection.x + detection.width + 2 * width) - 1
        bottom = min(overlay.height, detection.y + detection.height + 2 * width) - 1
        draw.rectangle((left, top, right, bottom), outline=BOX, width=width)
    return overlay


def encode_overlay(overlay: Image.Image) -> bytes:
    """Encode an overlay as JPEG, reduced to the size that JPEG allows."""
    overlay.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    buffer = io.BytesIO()
    overlay.save(buffer, format="JPEG", quality=QUALITY)
    return buffer.getvalue()


def _outline(flagged: np.ndarray) -> Image.Image:
    """The pixels next to the flagged ones, so that the line does not hide small defects."""
    from scipy import ndimage

    width = _line_width(flagged)
    inside = flagged.astype(np.uint8) * np.uint8(255)
    # Separable, and therefore faster than Pillow's MaxFilter.
    outer = ndimage.maximum_filter(inside, size=2 * width + 1, mode="constant")
    return Image.fromarray(outer & ~inside)


def _line_width(pixels: np.ndarray) -> int:
    return max(1, round(min(pixels.shape) / LINE_SHARE))


@cache
def _palette() -> bytes:
    from matplotlib import colormaps

    return np.rint(colormaps["inferno"](np.arange(256))[:, :3] * 255).astype(np.uint8).tobytes()
