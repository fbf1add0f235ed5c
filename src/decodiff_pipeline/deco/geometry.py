"""From a photograph to the squares the model sees, and from its maps back to the photograph.

Everything here happens along one side at a time, so one `Axis` says it all: the image is resized
to ``scaled`` pixels, padded, and squares are cut from that. The *map* of an image is what its
squares together show of it, padding left out; maps, reconstructions and masks have its size.
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
# A sliver of a picture, its short side scaled up to `resize`, would not fit into memory.
MAX_ASPECT = 64


@dataclass(frozen=True)
class Axis:
    """One side of an image on its way to the model.

    Attributes:
        length: Pixels of the image.
        scaled: Pixels that it is resized to.
        before: Pixels of padding in front of it; what is missing to the squares follows it.
        starts: Where the squares begin, in the padded image.
        side: Of the squares.
    """

    length: int
    scaled: int
    before: int
    starts: tuple[int, ...]
    side: int

    @property
    def after(self) -> int:
        """Pixels of padding behind it."""
        return max(0, self.starts[-1] + self.side - self.before - self.scaled)

    @property
    def shown(self) -> slice:
        """What of the padded image the map shows."""
        end = min(self.starts[-1] + self.side, self.before + self.scaled)
        return slice(max(self.starts[0], self.before), end)

    @property
    def content(self) -> slice:
        """The same part of the resized image, before the padding."""
        return slice(self.shown.start - self.before, self.shown.stop - self.before)

    @property
    def seen(self) -> slice:
        """Pixels of the image whose centre is in the map."""
        centres = (np.arange(self.length) + HALF) * self.scaled / self.length + self.before
        inside = np.flatnonzero((centres >= self.shown.start) & (centres < self.shown.stop))
        return slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)


class Plan(NamedTuple):
    """The two sides of an image."""

    down: Axis
    across: Axis

    @property
    def shown(self) -> tuple[slice, slice]:
        """What of the padded image the map shows."""
        return self.down.shown, self.across.shown

    @property
    def content(self) -> tuple[slice, slice]:
        """The same part of the resized image, before the padding."""
        return self.down.content, self.across.content

    @property
    def seen(self) -> tuple[slice, slice]:
        """The box of the image's pixels that the model saw."""
        return self.down.seen, self.across.seen

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Top and left of each square, row by row."""
        return list(product(self.down.starts, self.across.starts))

    @property
    def map_shape(self) -> tuple[int, int]:
        """Height and width of the map."""
        rows, columns = self.content
        return rows.stop - rows.start, columns.stop - columns.start


def plan(size: tuple[int, int], config: PreprocessConfig) -> Plan:
    """Where an image goes.

    Args:
        size: Its width and height in pixels.

    Raises:
        ImageError: Its short side decides on the scale, and the other one is more than 64 times
            as long.
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
    # Of an odd remainder the smaller half comes first.
    return Axis(length, scaled, max(0, -rest) // 2, (max(0, rest) // 2,), side)


def resize_and_pad(image: Image.Image, config: PreprocessConfig) -> np.ndarray:
    """The whole image, resized (bicubic) and, for ``letterbox``, padded to a square.

    The padding repeats the outermost pixels: a plain colour would put an edge where the image
    has none, and the model would have to learn it or report it.

    Args:
        image: A PIL image of any mode that :func:`~.colour.to_eight_bit` knows.

    Returns:
        uint8 (H, W, 3), which :func:`square` cuts.
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
    """One of the squares of an image.

    Args:
        whole: As :func:`resize_and_pad` returns it.
        size: Width and height of the image in pixels.
        number: Which; the numbers wrap around.

    Returns:
        uint8 (image_size, image_size, 3).
    """
    corners = plan(size, config).corners
    top, left = corners[number % len(corners)]
    return whole[top : top + config.image_size, left : left + config.image_size]


def squares(image: Image.Image, config: PreprocessConfig) -> list[np.ndarray]:
    """All squares of an image, row by row; one, but for ``tile``.

    Args:
        image: A PIL image of any mode that :func:`~.colour.to_eight_bit` knows.

    Returns:
        uint8 (image_size, image_size, 3) each.
    """
    whole = resize_and_pad(image, config)
    return [
        square(whole, image.size, config, number)
        for number in range(square_count(image.size, config))
    ]


def square_count(size: tuple[int, int], config: PreprocessConfig) -> int:
    """How many squares an image of this width and height gives."""
    return len(plan(size, config).corners)


def as_seen(image: Image.Image, config: PreprocessConfig) -> np.ndarray:
    """The image at the size of its map and of its reconstruction: uint8 (h, w, 3)."""
    return resize_and_pad(image, config)[plan(image.size, config).shown]


def stitch(
    parts: np.ndarray | Sequence[np.ndarray], size: tuple[int, int], config: PreprocessConfig
) -> np.ndarray:
    """Put what was made of an image's squares together, without padding.

    Where squares overlap, each counts by the distance to its border, down times across, so that
    there are no seams.

    Args:
        parts: Float (image_size, image_size), or uint8 (…, 3), one for each square.
        size: Width and height of the image in pixels.

    Returns:
        The map, (h, w) or (h, w, 3), of the parts' type; of one square, its pixels as they are.
    """
    where, side = plan(size, config), config.image_size
    if len(parts) == 1:
        (top, left), (rows, columns) = where.corners[0], where.shown
        return parts[0][
            rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
        ]
    first = np.asarray(parts[0])
    trailing = [1] * (first.ndim - 2)  # of colours
    ramp = np.minimum(np.arange(1.0, side + 1), np.arange(side, 0, -1))
    weight = np.outer(ramp, ramp).reshape(side, side, *trailing)
    total = np.zeros((*where.map_shape, *first.shape[2:]))
    weights = np.zeros((*where.map_shape, *trailing))
    for part, (top, left) in zip(parts, where.corners, strict=True):
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
    """Bring a map back to the pixels of the image it was made of (bilinear).

    Args:
        anomaly_map: Float (h, w), or a reconstruction, uint8 (h, w, 3).
        size: Width and height of the image in pixels.
        target: Width and height of the result, where it is to be another than ``size``.

    Returns:
        float32 (H, W), or uint8 (H, W, 3); 0 where the model did not see the image.
    """
    where = plan(size, config)
    missing = [(axis.content.start, axis.scaled - axis.content.stop) for axis in where]
    kind = np.uint8 if anomaly_map.dtype == np.uint8 else np.float32
    # Zeros beside the map would dim its border.
    padded = np.pad(
        anomaly_map.astype(kind, copy=False),
        missing + [(0, 0)] * (anomaly_map.ndim - 2),
        mode="edge",
    )
    full = np.array(Image.fromarray(padded).resize(target or size, Image.Resampling.BILINEAR))
    full[~seen(size, config, target)] = 0
    return full


def seen(
    size: tuple[int, int], config: PreprocessConfig, target: tuple[int, int] | None = None
) -> np.ndarray:
    """Which pixels of an image the model saw: bool (H, W).

    Args:
        size: Width and height of the image in pixels.
        config: How it is fitted into squares.
        target: Width and height of the result, where it is to be another than ``size``.
    """
    width, height = target or size
    result = np.zeros((height, width), dtype=bool)
    rows, columns = plan(size, config)
    result[replace(rows, length=height).seen, replace(columns, length=width).seen] = True
    return result
