"""Embedded pictures of a page: data URIs, transparent heat maps, mask outlines as SVG paths."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

QUALITIES = (80, 65, 50, 35, 20)
SMALLEST = 16  # pixels; smallest side to which a picture is reduced
ALPHA_QUALITY = 90  # below 70, WebP keeps too few levels for a smooth heat map
# Yellow, red at 1/2 (the threshold) and magenta; transparent below 1/5, as good images are.
ANCHORS = (0.2, 0.5, 1.0)
COLOURS = np.array([(255, 230, 0), (255, 60, 0), (255, 0, 170)], float)
OPACITIES = np.array([0.0, 0.6, 0.9])


def fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height scaled down to fit into a square, with the same aspect ratio.

    Args:
        size: Width and height in pixels.
        side: Side of the square in pixels; smaller images are not enlarged.
    """
    scale = min(1.0, side / max(size))
    width, height = (max(1, round(length * scale)) for length in size)
    return width, height


def data_uri(image: Image.Image, budget: int) -> str:
    """Encode a picture as WebP, at the best quality within a size budget.

    Args:
        image: "L", "RGB" or "RGBA".
        budget: Largest file size in bytes (4/3 of it as base64). If no quality fits, the side is
            halved until one does.

    Returns:
        A ``data:image/webp`` URI.

    Raises:
        ValueError: A picture of `SMALLEST` pixels does not fit.
    """
    while True:
        for quality in QUALITIES:
            buffer = io.BytesIO()
            image.save(buffer, "WEBP", quality=quality, alpha_quality=ALPHA_QUALITY, method=1)
            if buffer.tell() <= budget:
                return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        if max(image.size) <= SMALLEST:
            raise ValueError(f"no picture fits into {budget} bytes")
        image = image.resize(fitted(image.size, max(image.size) // 2))


def thumbnail_uri(image: Image.Image, side: int) -> str:
    """The data URI of a PNG whose longer side has at most ``side`` pixels."""
    small = image.copy()
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def heat(values: np.ndarray, top: float) -> Image.Image:
    """An anomaly map as an overlay: transparent at low values, magenta at high values.

    Args:
        values: Float (H, W), at least 0.
        top: Value of the strongest colour.

    Returns:
        "RGBA" of W by H pixels.
    """
    shares = np.clip(values / top, 0, 1) if top > 0 else np.zeros(values.shape)
    channels = [np.interp(shares, ANCHORS, column) for column in COLOURS.T]
    opacity = 255 * np.interp(shares, ANCHORS, OPACITIES)
    return Image.fromarray(np.stack([*channels, opacity], -1).round().astype(np.uint8))


def outline(mask: np.ndarray, size: tuple[int, int]) -> str:
    """The edges of a mask as SVG path data.

    Args:
        mask: bool (H, W).
        size: Width and height of the SVG's view box. If they are smaller than the mask's, every
            pixel that overlaps the mask belongs to it, so that small defects stay visible.

    Returns:
        The attribute ``d``; "" for an empty mask.
    """
    small = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
    inside = np.pad(np.asarray(small) > 0, 1).astype(np.int8)
    across = np.diff(inside, axis=0)[:, 1:-1] != 0  # (H + 1, W): an edge above pixel (y, x)
    along = np.diff(inside, axis=1)[1:-1].T != 0  # (W + 1, H): an edge left of pixel (y, x)
    horizontal = [f"M{start} {y}h{n}" for y, start, n in _runs(across)]
    return "".join(horizontal + [f"M{x} {start}v{n}" for x, start, n in _runs(along)])


def _runs(edges: np.ndarray) -> Sequence[tuple[int, int, int]]:
    """(line, start, length) of each run of True along the second axis."""
    padded = np.pad(edges, ((0, 0), (1, 1))).astype(np.int8)
    steps = np.diff(padded, axis=1)
    lines, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    return list(zip(lines.tolist(), starts.tolist(), (ends - starts).tolist(), strict=True))
