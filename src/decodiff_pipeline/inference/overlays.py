"""What a person looks at: the image, where it is anomalous, and what counts as a defect."""

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
LINE_SHARE = 250  # a line is this part of the shorter side, at least a pixel
OPACITY = 0.75  # of the heat map where it is hottest
LARGEST_SIDE = 65_000  # pixels; a JPEG ends at 65,535
QUALITY = 90


def draw_overlay(
    image: Image.Image,
    anomaly_map: np.ndarray,
    pixel_threshold: float | None,
    detections: Sequence[Detection] = (),
) -> Image.Image:
    """Lay the heat map over an image; draw a line around the flagged pixels and the boxes.

    The colours are the same in all images of a category: full heat is twice the pixel threshold,
    or 1 without one.

    Args:
        image: "L" or "RGB".
        anomaly_map: Float (height, width) within 0…1, of the image's size.
        pixel_threshold: Pixels from it on are flagged; ``None`` draws no line.

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
    for found in detections:
        # Outside of the outline, where the image has room for it.
        left, top = max(0, found.x - 2 * width), max(0, found.y - 2 * width)
        right = min(overlay.width, found.x + found.width + 2 * width) - 1
        bottom = min(overlay.height, found.y + found.height + 2 * width) - 1
        draw.rectangle((left, top, right, bottom), outline=BOX, width=width)
    return overlay


def encode_overlay(overlay: Image.Image) -> bytes:
    """JPEG of an overlay; smaller than the image where that is more than a JPEG can hold."""
    overlay.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    buffer = io.BytesIO()
    overlay.save(buffer, format="JPEG", quality=QUALITY)
    return buffer.getvalue()


def _outline(flagged: np.ndarray) -> Image.Image:
    """The pixels just outside of the flagged ones, so that the line hides no small defect."""
    from scipy import ndimage

    width = _line_width(flagged)
    inside = flagged.astype(np.uint8) * np.uint8(255)
    # One side after the other; Pillow's MaxFilter looks at the whole window for every pixel.
    outer = ndimage.maximum_filter(inside, size=2 * width + 1, mode="constant")
    return Image.fromarray(outer & ~inside)


def _line_width(pixels: np.ndarray) -> int:
    return max(1, round(min(pixels.shape) / LINE_SHARE))


@cache
def _palette() -> bytes:
    from matplotlib import colormaps

    return np.rint(colormaps["inferno"](np.arange(256))[:, :3] * 255).astype(np.uint8).tobytes()
