"""Scored regions of categories: from masks and polygons in the parameters to `Region`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from decodiff_pipeline.data.images import read_mask
from decodiff_pipeline.deco.regions import CELL, Region, latent_cells
from decodiff_pipeline.errors import ConfigurationError, ImageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from decodiff_pipeline.deco.config import PreprocessConfig

MIN_POINTS = 3
ASPECT_TOLERANCE = 0.01
Polygon = list[list[float]]


def _polygons(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list) or not value or not all(isinstance(p, list) for p in value):
        raise ValueError("give the path of a mask, or a list of polygons [[x, y], [x, y], …]")
    if all(_is_point(point) for point in value):
        raise ValueError("give a list of polygons, also where there is one: [[[x, y], …]]")
    for polygon in value:
        if len(polygon) < MIN_POINTS or not all(_is_point(point) for point in polygon):
            raise ValueError("a polygon needs 3 or more points [x, y], finite numbers of pixels")
    return value


def _is_point(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2  # noqa: PLR2004
        and all(isinstance(one, int | float) and math.isfinite(one) for one in value)
    )


Drawn = Annotated[str | list[Polygon] | None, BeforeValidator(_polygons)]


class RegionConfig(BaseModel):
    """Region of a category's images that is scored, given by ``include`` or ``exclude``.

    Attributes:
        include: The region that is scored: the path of a mask (non-zero inside), or polygons, each
            a list of points [x, y] in pixels of the image, with [0, 0] its upper left corner.
        exclude: The region that is not scored, in the same form.
        size: Width and height in pixels of the image that the polygons were drawn on; ``None`` for
            the size of the category's images, if they all have the same one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    include: Drawn = None
    exclude: Drawn = None
    size: tuple[int, int] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.include is None) == (self.exclude is None):
            raise ValueError("give either include or exclude")
        if self.size is not None and (min(self.size) < 1 or isinstance(self.drawn, str)):
            raise ValueError("size is the width and height that polygons were drawn on, in pixels")
        return self

    @property
    def drawn(self) -> str | list[Polygon]:
        """``include`` or ``exclude``: the path of the mask or the polygons."""
        drawn = self.exclude if self.include is None else self.include
        assert drawn is not None  # noqa: S101 - as validated
        return drawn

    @property
    def mask(self) -> Path | None:
        """Path of the mask; ``None`` for polygons."""
        return Path(self.drawn) if isinstance(self.drawn, str) else None


def check_masks(configs: Mapping[str, RegionConfig]) -> None:
    """Check that all masks can be read; needs no manifest.

    Raises:
        ConfigurationError: A mask cannot be read.
    """
    for category, config in configs.items():
        if config.mask is not None:
            _mask(category, config.mask)


def load_regions(
    configs: Mapping[str, RegionConfig], manifest: pd.DataFrame, geometry: PreprocessConfig
) -> dict[str, Region]:
    """Load the regions of categories and check them against all images of the manifest.

    Raises:
        ConfigurationError: A category is unknown; a mask cannot be read; a polygon leaves the
            image; the region is empty, has another aspect ratio than the images, or contains no
            whole latent cell.
    """
    found = {}
    for category, config in sorted(configs.items()):
        rows = manifest[manifest["category"] == category]
        if rows.empty:
            known = ", ".join(sorted(manifest["category"].unique()))
            raise ConfigurationError(
                f"scoring.regions names the category {category!r}, but the data have {known}"
            )
        found[category] = _checked(category, config, rows, geometry)
    return found


def _checked(
    category: str, config: RegionConfig, rows: pd.DataFrame, geometry: PreprocessConfig
) -> Region:
    where = f"scoring.regions.{category}"
    first = rows.drop_duplicates(["width", "height"])
    sizes = {
        (int(width), int(height)): path
        for width, height, path in zip(first["width"], first["height"], first["path"], strict=True)
    }
    drawn = _drawn(category, config, list(sizes))
    inside = drawn if config.exclude is None else ~drawn
    region = Region.of(inside, filled=True)
    if not inside.any():
        raise ConfigurationError(f"{where} leaves no pixel that counts")
    for size, path in sizes.items():
        ratio = size[0] * region.height / (size[1] * region.width)
        if abs(ratio - 1) > ASPECT_TOLERANCE:
            raise ConfigurationError(
                f"{where} is drawn on {region.width}x{region.height} pixels, but {path} has "
                f"{size[0]}x{size[1]}: its images must have one aspect ratio, that of the region"
            )
        side = geometry.image_size // CELL
        if not latent_cells(region.in_squares(size, geometry), side).any():
            raise ConfigurationError(
                f"{where} holds no whole latent cell ({CELL}x{CELL} pixels of the model's input) "
                f"of what the model sees of {path}: enlarge it or preprocessing.resize"
            )
    return region


def _drawn(category: str, config: RegionConfig, sizes: list[tuple[int, int]]) -> np.ndarray:
    """Rasterise the mask or the polygons: bool (H, W)."""
    if config.mask is not None:
        return _mask(category, config.mask)
    if config.size is None and len(sizes) > 1:
        raise ConfigurationError(
            f"scoring.regions.{category} has polygons, but its images have {len(sizes)} sizes "
            f"({sizes[0][0]}x{sizes[0][1]}, {sizes[1][0]}x{sizes[1][1]}, …): say with size: "
            "[width, height] which one they are drawn on"
        )
    width, height = config.size or sizes[0]
    inside = np.zeros((height, width), bool)
    for polygon in config.drawn:
        points = np.array(polygon, float)
        outside = (points < 0) | (points > (width, height))
        if outside.any():
            x, y = points[outside.any(axis=1)][0]
            raise ConfigurationError(
                f"scoring.regions.{category}: the point [{x:g}, {y:g}] lies outside of the "
                f"{width}x{height} pixels of its images"
            )
        inside |= filled(points, width, height)
    return inside


def filled(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """Rasterise a polygon by the even-odd rule at pixel centres: bool (height, width).

    Args:
        points: Float (K, 2), x and y of each corner in pixels.
    """
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    inside = np.zeros((height, width), bool)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        rows = (y >= min(y0, y1)) & (y < max(y0, y1))
        crossing = x0 + (y[rows] - y0) * (x1 - x0) / (y1 - y0 or 1)
        inside[rows] ^= x >= crossing[:, None]
    return inside


def _mask(category: str, path: Path) -> np.ndarray:
    try:
        return read_mask(path).defect
    except ImageError as error:
        raise ConfigurationError(f"scoring.regions.{category}: {error}") from error
