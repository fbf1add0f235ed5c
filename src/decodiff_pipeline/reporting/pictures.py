"""Small pictures inside a page: data URIs, heat maps with transparency, outlines as SVG paths."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

QUALITIES = (80, 65, 50, 35, 20)
SMALLEST = 16  # pixels; a picture of this side is never shrunk further
ALPHA_QUALITY = 90  # below 70 WebP keeps so few levels that a heat map gets blotches
# Yellow, red at 1/2 (the threshold) and magenta; clear below 1/5, so that good images stay clean.
ANCHORS = (0.2, 0.5, 1.0)
COLOURS = np.array([(255, 230, 0), (255, 60, 0), (255, 0, 170)], float)
OPACITIES = np.array([0.0, 0.6, 0.9])


def fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height within a square of some side, never enlarged, the ratio kept.

    Args:
        size: Width and height in pixels.
        side: Of the square in pixels.
    """
    scale = min(1.0, side / max(size))
    width, height = (max(1, round(length * scale)) for length in size)
    return width, height


def data_uri(image: Image.Image, budget: int) -> str:
    """Encode a picture as WebP within a budget, at the best quality that fits.

    Args:
        image: "L", "RGB" or "RGBA".
        budget: Bytes of the file; in the page it takes four thirds of them. A picture too rich
            for the budget at any quality is halved in size until it fits.

    Returns:
        A ``data:image/webp`` URI.
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
    """A small copy of a picture, at most ``side`` pixels long, as the URI of a PNG."""
    small = image.copy()
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def heat(values: np.ndarray, top: float) -> Image.Image:
    """A map as a layer over its image: transparent where it is low, magenta where it is high.

    Args:
        values: Float (H, W), at least 0.
        top: Which value gets the strongest colour.

    Returns:
        "RGBA" of W by H pixels.
    """
    shares = np.clip(values / top, 0, 1) if top > 0 else np.zeros(values.shape)
    channels = [np.interp(shares, ANCHORS, column) for column in COLOURS.T]
    opacity = 255 * np.interp(shares, ANCHORS, OPACITIES)
    return Image.fromarray(np.stack([*channels, opacity], -1).round().astype(np.uint8))


def outline(mask: np.ndarray, size: tuple[int, int]) -> str:
    """The edges of a mask as the path of an SVG whose view box is W by H.

    Args:
        mask: bool (H, W). At a smaller size every pixel that a defect touches belongs to it, so
            that none vanishes.
        size: W and H of the path's coordinates in pixels.

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
