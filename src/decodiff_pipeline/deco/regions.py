"""The part of a category's images that counts; a pixel outside of it is not scored or measured.

Not in the paper. The model sees the nearest pixel that counts in the place of each that does not,
and its discrepancies there are dropped before anything is made of them: what lies outside changes
nothing.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image
from pydantic.dataclasses import dataclass
from scipy import ndimage

from decodiff_pipeline.deco.config import STRICT
from decodiff_pipeline.deco.geometry import plan, to_original
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch

    from decodiff_pipeline.deco.config import PreprocessConfig

Pixels = TypeVar("Pixels", np.ndarray, "torch.Tensor")
CELL = 8  # pixels of the model's input in a latent cell, down and across
HALF_LEVEL = 128  # of 255


@dataclass(frozen=True, config=STRICT)
class Region:
    """Which pixels of an image count.

    Attributes:
        width: Of the image that it was drawn on, in pixels; other images are taken for enlarged or
            reduced copies of that one.
        height: The same.
        runs: Lengths of runs of pixels, row after row, in turn outside and inside, with spaces
            between them. The first may be 0.
        filled: Whether `fill` is done to what the model sees. Models saved before there was this
            field see the image as it is.
    """

    width: int
    height: int
    runs: str
    filled: bool = False

    def __post_init__(self) -> None:
        if sum(map(int, self.runs.split())) != self.width * self.height:
            raise ModelError(
                f"a region of the model has not {self.width}x{self.height} pixels: its file is "
                "damaged; train the model again"
            )

    @classmethod
    def of(cls, inside: np.ndarray, *, filled: bool = False) -> Region:
        """The region of the True pixels of a bool array (H, W)."""
        flat = inside.ravel()
        ends = np.append(np.flatnonzero(np.diff(flat, prepend=False)), len(flat))
        runs = " ".join(map(str, np.diff(ends, prepend=0).tolist()))
        return cls(inside.shape[1], inside.shape[0], runs, filled)

    def facts(self) -> dict[str, Any]:
        """The fields as they are saved, without ``filled`` where it is as in earlier models."""
        return {name: value for name, value in asdict(self).items() if value is not False}

    def at(self, size: tuple[int, int]) -> np.ndarray:
        """Which pixels of an image of some width and height count: bool (H, W), read-only."""
        return _at(self, size)

    def in_map(self, size: tuple[int, int], geometry: PreprocessConfig) -> np.ndarray:
        """Which pixels of the map of an image of this size count: bool (h, w)."""
        down, across = where = plan(size, geometry)
        return self.at((across.scaled, down.scaled))[where.content]

    def in_squares(self, size: tuple[int, int], geometry: PreprocessConfig) -> np.ndarray:
        """Which pixels of the squares of an image of this size count: bool (M, S, S).

        Padding repeats the outermost pixels, as it does in the image.
        """
        down, across = where = plan(size, geometry)
        padding = (down.before, down.after), (across.before, across.after)
        whole = np.pad(self.at((across.scaled, down.scaled)), padding, mode="edge")
        side = geometry.image_size
        return np.stack(
            [whole[top : top + side, left : left + side] for top, left in where.corners]
        )


@lru_cache(maxsize=8)
def _at(region: Region, size: tuple[int, int]) -> np.ndarray:
    lengths = np.array(region.runs.split(), np.int64)
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    inside = flat.reshape(region.height, region.width)
    if size != (region.width, region.height):
        picture = Image.fromarray(inside.astype(np.uint8) * np.uint8(255))
        inside = np.asarray(picture.resize(size, Image.Resampling.BOX)) >= HALF_LEVEL
    inside.flags.writeable = False  # it is kept
    return inside


def fill(pixels: Pixels, inside: np.ndarray) -> Pixels:
    """The nearest pixel that counts in the place of each that does not.

    Args:
        pixels: Array or tensor (H, W) or (H, W, C).
        inside: bool (H, W); where nothing counts, the pixels stay as they are.

    Returns:
        The same shape and type.
    """
    places = _nearest(np.packbits(inside).tobytes(), inside.shape)
    return pixels if places is None else pixels[places]


@lru_cache(maxsize=16)
def _nearest(packed: bytes, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
    """Row and column of the nearest True pixel, int64 (H, W) both; ``None`` for no change."""
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=shape[0] * shape[1])
    outside = bits.reshape(shape) == 0
    if outside.all() or not outside.any():
        return None
    rows, columns = ndimage.distance_transform_edt(
        outside, return_distances=False, return_indices=True
    )
    return rows.astype(np.int64), columns.astype(np.int64)


def latent_cells(inside: np.ndarray, side: int) -> np.ndarray:
    """The latent cells that count: those with all of their pixels inside.

    Args:
        inside: bool (M, S, S), of squares.
        side: Of the latents, in cells.

    Returns:
        bool (M, side, side).
    """
    per_cell = inside.shape[-1] // side
    cells = inside.reshape(len(inside), side, per_cell, side, per_cell)
    return np.asarray(cells.all((2, 4)))


def full_size_map(
    anomaly_map: np.ndarray,
    size: tuple[int, int],
    geometry: PreprocessConfig,
    region: Region | None,
    target: tuple[int, int] | None = None,
) -> np.ndarray:
    """As `to_original`, and 0 outside of the region: interpolation would cross its border."""
    full = to_original(anomaly_map, size, geometry, target)
    if region is not None:
        full[~region.at(target or size)] = 0
    return full


def squares_inside(
    regions: Sequence[Region | None],
    sizes: Sequence[tuple[int, int]],
    geometry: PreprocessConfig,
) -> Iterator[np.ndarray] | None:
    """What counts of each square of some images, bool (S, S); ``None`` where everything does."""
    if not any(regions):
        return None
    return (
        square
        for region, size in zip(regions, sizes, strict=True)
        for square in (region or EVERYTHING).in_squares(size, geometry)
    )


def read_regions(config: Mapping[str, Any]) -> dict[str, Region]:
    """Category → region, from a model's configuration or from what it says of its predictions."""
    return {name: Region(**facts) for name, facts in (config.get("regions") or {}).items()}


@contextmanager
def with_regions(model: Any, regions: Mapping[str, Region]) -> Iterator[None]:
    """Let a model score within other regions than its own.

    Args:
        model: With diffusers' ``config``; another is left alone where there is no region.
        regions: Category → what of its images counts.
    """
    own = read_regions(getattr(model, "config", {}))
    if regions == own:
        yield
        return
    model.register_to_config(regions={name: one.facts() for name, one in regions.items()})
    try:
        yield
    finally:
        model.register_to_config(regions={name: one.facts() for name, one in own.items()})


EVERYTHING = Region(1, 1, "0 1")
