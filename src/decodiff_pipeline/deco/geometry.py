"""Geometry of the preprocessing: images to square model inputs, and maps back to images.

An `Axis` describes one side of an image: it is resized to ``scaled`` pixels, padded, and squares
are cut from it. The *map* of an image covers the part that its squares show, without padding;
maps, reconstructions and masks have this size. Sizes are width and height in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from decodiff_pipeline.deco.colour import to_eight_bit
from decodiff_pipeline.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decodiff_pipeline.deco.config import PreprocessConfig

HALF = 0.5
MAX_ASPECT = 64  # longer / shorter side; limits the memory of images scaled by the shorter side


@dataclass(frozen=True)
class Axis:
    """The geometry along one side of an image.

    Attributes:
        length: Length of the image in pixels.
        scaled: Length of the resized image in pixels.
        before: Padding before the resized image in pixels.
        starts: Start of each square in the padded image.
        side: Side of the squares in pixels.
    """

    length: int
    scaled: int
    before: int
    starts: tuple[int, ...]
    side: int

    @property
    def after(self) -> int:
        """Padding after the resized image in pixels."""
        return max(0, self.starts[-1] + self.side - self.before - self.scaled)

    @property
    def shown(self) -> slice:
        """The part of the padded image that the map covers."""
        end = min(self.starts[-1] + self.side, self.before + self.scaled)
        return slice(max(self.starts[0], self.before), end)

    @property
    def content(self) -> slice:
        """The part of the resized image that the map covers."""
        return slice(self.shown.start - self.before, self.shown.stop - self.before)

    @property
    def seen(self) -> slice:
        """The part of the original image whose pixel centres the map covers."""
        centres = (np.arange(self.length) + HALF) * self.scaled / self.length + self.before
        inside = np.flatnonzero((centres >= self.shown.start) & (centres < self.shown.stop))
        return slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)


class Plan(NamedTuple):
    """The geometry along both sides of an image."""

    down: Axis
    across: Axis

    @property
    def shown(self) -> tuple[slice, slice]:
        """The part of the padded image that the map covers."""
        return self.down.shown, self.across.shown

    @property
    def content(self) -> tuple[slice, slice]:
        """The part of the resized image that the map covers."""
        return self.down.content, self.across.content

    @property
    def seen(self) -> tuple[slice, slice]:
        """The part of the original image that the map covers."""
        return self.down.seen, self.across.seen

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Top and left of each square in the padded image, row by row."""
        return list(product(self.down.starts, self.across.starts))

    @property
    def map_shape(self) -> tuple[int, int]:
        """Height and width of the map."""
        rows, columns = self.content
        return rows.stop - rows.start, columns.stop - columns.start


def plan(size: tuple[int, int], config: PreprocessConfig) -> Plan:
    """The geometry of an image.

    Raises:
        ImageError: The shorter side determines the scale, and the longer one is more than 64
            times as long.
    """
    reference = {"stretch": None, "letterbox": max(size)}.get(config.fit, min(size))
    scaled = [max(1, round(length * config.resize / (reference or length))) for length in size]
    if max(scaled) > MAX_ASPECT * config.resize:
        raise ImageError(
            f"an image of {size[0]}x{size[1]} pixels is too narrow for preprocessing.fit "
            f"{config.fit!r}, which scales the shorter side to {config.resize}: cut it into pieces "
            "or use letterbox or stretch"
        )
    across, down = (_axis(*lengths, config) for lengths in zip(size, scaled, strict=True))
    return Plan(down, across)


def _axis(length: int, scaled: int, config: PreprocessConfig) -> Axis:
    side, rest = config.image_size, scaled - config.image_size
    if config.fit == "tile":
        step = max(1, math.floor(side * (1 - config.overlap)))
        starts = np.linspace(0, rest, 1 + math.ceil(rest / step)).round().astype(int)
        return Axis(length, scaled, 0, tuple(starts.tolist()), side)
    # If the remainder is odd, the smaller half comes first.
    return Axis(length, scaled, max(0, -rest) // 2, (max(0, rest) // 2,), side)


def resize_and_pad(image: Image.Image, config: PreprocessConfig) -> np.ndarray:
    """Resize an image (bicubic) and, for ``letterbox``, pad it to a square.

    The padding repeats the border pixels; a constant colour would add an edge.

    Args:
        image: A PIL image of a mode that :func:`~.colour.to_eight_bit` supports.

    Returns:
        uint8 (H, W, 3), the input of :func:`square`.
    """
    down, across = plan(image.size, config)
    size = (across.scaled, down.scaled)
    coloured = to_eight_bit(image).convert("RGB")
    pixels = np.asarray(coloured.resize(size, Image.Resampling.BICUBIC))
    padding = ((down.before, down.after), (across.before, across.after), (0, 0))
    return np.pad(pixels, padding, mode="edge") if np.any(padding) else pixels


def square(
    whole: np.ndarray, size: tuple[int, int], config: PreprocessConfig, number: int = 0
) -> np.ndarray:
    """Cut a square from an image.

    Args:
        whole: As :func:`resize_and_pad` returns it.
        size: Size of the original image.
        number: Number of the square, modulo the number of squares.

    Returns:
        uint8 (image_size, image_size, 3).
    """
    corners = plan(size, config).corners
    top, left = corners[number % len(corners)]
    return whole[top : top + config.image_size, left : left + config.image_size]


def squares(image: Image.Image, config: PreprocessConfig) -> list[np.ndarray]:
    """All squares of an image, row by row; a single one except for ``tile``.

    Args:
        image: A PIL image of a mode that :func:`~.colour.to_eight_bit` supports.

    Returns:
        uint8 (image_size, image_size, 3) each.
    """
    whole = resize_and_pad(image, config)
    return [
        square(whole, image.size, config, number)
        for number in range(square_count(image.size, config))
    ]


def square_count(size: tuple[int, int], config: PreprocessConfig) -> int:
    """Number of squares of an image of this width and height."""
    return len(plan(size, config).corners)


def as_seen(image: Image.Image, config: PreprocessConfig) -> np.ndarray:
    """The image at the size of its map, uint8 (h, w, 3)."""
    return resize_and_pad(image, config)[plan(image.size, config).shown]


def stitch(
    parts: np.ndarray | Sequence[np.ndarray], size: tuple[int, int], config: PreprocessConfig
) -> np.ndarray:
    """Stitch the maps or reconstructions of an image's squares, without padding.

    Overlapping squares are blended with weights that decrease linearly towards their borders, so
    that there are no seams.

    Args:
        parts: Float (image_size, image_size), or uint8 (…, 3), one for each square.

    Returns:
        (h, w) or (h, w, 3), with the dtype of the parts.
    """
    layout, side = plan(size, config), config.image_size
    if len(parts) == 1:
        (top, left), (rows, columns) = layout.corners[0], layout.shown
        return parts[0][
            rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
        ]
    first = np.asarray(parts[0])
    trailing = [1] * (first.ndim - 2)  # axis of the colour channels
    ramp = np.minimum(np.arange(1.0, side + 1), np.arange(side, 0, -1))
    weight = np.outer(ramp, ramp).reshape(side, side, *trailing)
    total = np.zeros((*layout.map_shape, *first.shape[2:]))
    weights = np.zeros((*layout.map_shape, *trailing))
    for part, (top, left) in zip(parts, layout.corners, strict=True):
        here = slice(top, top + side), slice(left, left + side)
        total[here] += weight * part
        weights[here] += weight
    total /= weights
    return (np.rint(total) if first.dtype == np.uint8 else total).astype(first.dtype)


def to_original(
    anomaly_map: np.ndarray,
    size: tuple[int, int],
    config: PreprocessConfig,
    target: tuple[int, int] | None = None,
) -> np.ndarray:
    """Resize a map (bilinear) to the size of the original image.

    Args:
        anomaly_map: Float (h, w), or a reconstruction, uint8 (h, w, 3).
        target: Size of the result; by default ``size``.

    Returns:
        float32 (H, W), or uint8 (H, W, 3); 0 outside of the map.
    """
    layout = plan(size, config)
    missing = [(axis.content.start, axis.scaled - axis.content.stop) for axis in layout]
    dtype = np.uint8 if anomaly_map.dtype == np.uint8 else np.float32
    # Padding with zeros would lower the values at the border of the map.
    padded = np.pad(
        anomaly_map.astype(dtype, copy=False),
        missing + [(0, 0)] * (anomaly_map.ndim - 2),
        mode="edge",
    )
    full = np.array(Image.fromarray(padded).resize(target or size, Image.Resampling.BILINEAR))
    full[~seen(size, config, target)] = 0
    return full


def seen(
    size: tuple[int, int], config: PreprocessConfig, target: tuple[int, int] | None = None
) -> np.ndarray:
    """Mask of the pixels of an image that the map covers, bool (H, W), at the size ``target``."""
    width, height = target or size
    result = np.zeros((height, width), dtype=bool)
    rows, columns = plan(size, config)
    result[replace(rows, length=height).seen, replace(columns, length=width).seen] = True
    return result
