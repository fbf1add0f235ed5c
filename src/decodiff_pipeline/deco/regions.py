"""Regions of interest: pixels outside the region of a category are neither scored nor measured.

Not in the paper. Each pixel outside is replaced by the nearest pixel inside before the model sees
the image, and discrepancies outside are set to 0 before smoothing. Changes outside the region
therefore affect neither map nor score.
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
    """A mask of the pixels that are scored, run-length encoded.

    Attributes:
        width: Width in pixels of the image that the region was drawn on. For an image of another
            size the mask is rescaled.
        height: Height of that image in pixels.
        runs: Run lengths in row-major order, alternately outside and inside, separated by spaces.
            The first run is outside and may be 0.
        filled: Whether `fill` is applied to the model's input. False for models saved before this
            field existed.
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
        """The fields as saved; ``filled`` is left out if False, as in earlier models."""
        return {name: value for name, value in asdict(self).items() if value is not False}

    def at(self, size: tuple[int, int]) -> np.ndarray:
        """The mask for an image of (width, height): bool (H, W), True inside, read-only."""
        return _at(self, size)

    def in_map(self, size: tuple[int, int], geometry: PreprocessConfig) -> np.ndarray:
        """The mask for the anomaly map of an image of (width, height): bool (h, w)."""
        down, across = where = plan(size, geometry)
        return self.at((across.scaled, down.scaled))[where.content]

    def in_squares(self, size: tuple[int, int], geometry: PreprocessConfig) -> np.ndarray:
        """The masks for the M square inputs of an image of (width, height): bool (M, S, S).

        Padding repeats the edge of the mask, as it repeats the edge of the image.
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
    inside.flags.writeable = False  # the array is cached
    return inside


def fill(pixels: Pixels, inside: np.ndarray) -> Pixels:
    """Replace each pixel outside a region by the nearest pixel inside.

    Args:
        pixels: Array or tensor (H, W) or (H, W, C).
        inside: bool (H, W). A mask without a True pixel changes nothing.

    Returns:
        Array or tensor of the same shape and dtype.
    """
    places = _nearest(np.packbits(inside).tobytes(), inside.shape)
    return pixels if places is None else pixels[places]


@lru_cache(maxsize=16)
def _nearest(packed: bytes, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
    """Row and column of the nearest True pixel, int64 (H, W) each; None if all or none is True."""
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=shape[0] * shape[1])
    outside = bits.reshape(shape) == 0
    if outside.all() or not outside.any():
        return None
    rows, columns = ndimage.distance_transform_edt(
        outside, return_distances=False, return_indices=True
    )
    return rows.astype(np.int64), columns.astype(np.int64)


def latent_cells(inside: np.ndarray, side: int) -> np.ndarray:
    """The latent cells whose pixels are all inside the region.

    Args:
        inside: Masks of the square inputs, bool (M, S, S).
        side: Side of the latents in cells.

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
    """`to_original`, set to 0 outside the region, because interpolation crosses its border."""
    full = to_original(anomaly_map, size, geometry, target)
    if region is not None:
        full[~region.at(target or size)] = 0
    return full


def squares_inside(
    regions: Sequence[Region | None],
    sizes: Sequence[tuple[int, int]],
    geometry: PreprocessConfig,
) -> Iterator[np.ndarray] | None:
    """The mask of each square input, bool (S, S); None if no image has a region."""
    if not any(regions):
        return None
    return (
        square
        for region, size in zip(regions, sizes, strict=True)
        for square in (region or EVERYTHING).in_squares(size, geometry)
    )


def read_regions(config: Mapping[str, Any]) -> dict[str, Region]:
    """Category → region, from the configuration of a model or of stored predictions."""
    return {name: Region(**facts) for name, facts in (config.get("regions") or {}).items()}


@contextmanager
def with_regions(model: Any, regions: Mapping[str, Region]) -> Iterator[None]:
    """Replace a model's regions within the block.

    Args:
        model: A model with diffusers' ``config``. A model without it is accepted if ``regions`` is
            empty.
        regions: Category → region.
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
