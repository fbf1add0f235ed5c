"""What a person looks at: the image, where it is anomalous, and what counts as a defect."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image

OUTLINE = (0, 255, 255)  # not among the colours of the heat map
OUTLINE_SHARE = 250  # the outline is this part of the shorter side, at least a pixel
OPACITY = 0.75  # of the heat map where it is hottest
LARGEST_SIDE = 65_000  # pixels; a JPEG ends at 65,535
QUALITY = 90


def draw_overlay(
    image: Image.Image, anomaly_map: np.ndarray, pixel_threshold: float | None
) -> Image.Image:
    """Lay the heat map over an image and draw a line around the flagged pixels.

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

    width = max(1, round(min(flagged.shape) / OUTLINE_SHARE))
    inside = flagged.astype(np.uint8) * np.uint8(255)
    # One side after the other; Pillow's MaxFilter looks at the whole window for every pixel.
    outer = ndimage.maximum_filter(inside, size=2 * width + 1, mode="constant")
    return Image.fromarray(outer & ~inside)


@cache
def _palette() -> bytes:
    from matplotlib import colormaps

    return np.rint(colormaps["inferno"](np.arange(256))[:, :3] * 255).astype(np.uint8).tobytes()
