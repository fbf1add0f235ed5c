"""Messages about invisible defects, and the parameters under which they are visible."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.deco.config import SIZE_UNIT
from decodiff_pipeline.deco.geometry import square_count
from decodiff_pipeline.visibility.measure import model_scale, smallest_row

if TYPE_CHECKING:
    from collections.abc import Mapping

    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.visibility.config import VisibilityConfig
    from decodiff_pipeline.visibility.measure import Visibility

FINER = 2  # factor by which an option increases the resolution, limited by that of the images


@dataclass(frozen=True)
class Option:
    """Preprocessing under which smaller defects are visible."""

    parameters: str  # value of ``--params``
    squares: int  # squares per image
    times: float  # time per image, relative to the current preprocessing
    finer: float  # resolution relative to the current one; minimum over x and y


def options(size: tuple[int, int], geometry: PreprocessConfig) -> list[Option]:
    """Preprocessing with up to `FINER` times the resolution, limited by that of the images.

    The time is assumed to be proportional to the pixels of all squares. This ignores that
    attention grows faster and that small layers do not use all cores.
    """
    scale = model_scale(size, geometry)
    if min(scale) >= 1:
        return []
    result = []
    pixels = square_count(size, geometry) * geometry.image_size**2
    for changed in _changes(size, geometry, min(FINER, 1 / min(scale))):
        finer = min(new / old for new, old in zip(model_scale(size, changed), scale, strict=True))
        if finer > 1:
            squares = square_count(size, changed)
            times = squares * changed.image_size**2 / pixels
            result.append(Option(_parameters(changed, geometry), squares, times, finer))
    return result


def _changes(
    size: tuple[int, int], geometry: PreprocessConfig, factor: float
) -> list[PreprocessConfig]:
    """Geometries with this factor of the resolution, at most that of the images."""
    if geometry.fit == "tile":
        return [replace(geometry, resize=round(factor * geometry.resize))]
    side = SIZE_UNIT * ceil(factor * geometry.image_size / SIZE_UNIT)
    resize = round(geometry.resize * side / geometry.image_size)
    shorter = min(size)
    wanted = min(shorter, round(factor * min(model_scale(size, geometry)) * shorter))
    return [
        replace(geometry, image_size=side, resize=resize),
        replace(geometry, fit="tile", resize=max(geometry.image_size, wanted)),
    ]


def _parameters(changed: PreprocessConfig, geometry: PreprocessConfig) -> str:
    names = ("fit", "image_size", "resize")
    parts = [
        f"preprocessing.{name}={getattr(changed, name)}"
        for name in names
        if getattr(changed, name) != getattr(geometry, name)
    ]
    if changed.fit == "tile" != geometry.fit:
        # Normalisation by position is not possible with tiles and would be refused.
        parts.append("scoring.discrepancy.normalisation=none")
    return ",".join(parts)


def answer(
    category: str,
    visibility: Visibility,
    geometry: PreprocessConfig,
    config: VisibilityConfig,
) -> str:
    """The smallest visible defect of a category, and the options for smaller ones."""
    at = f"at {geometry.image_size}²"
    if not visibility.figures["images"]:
        return f"{category}: not measured, because it has no good val image"
    if not visibility.defects:
        return f"{category}: not measured, because images are too thin {at} for a defect"
    row = smallest_row(visibility.defects, f"grey_{config.contrast}")
    size = (round(visibility.figures["width"]), round(visibility.figures["height"]))
    if row is None:
        finding = f"no tested defect of contrast {config.contrast} is visible {at}"
    elif row is _smallest_tested(visibility, row):
        finding = (
            f"defects of contrast {config.contrast} are visible {at} down to "
            f"{_extent(row)}, the smallest tested"
        )
    else:
        finding = f"defects below {_extent(row)} of contrast {config.contrast} are invisible {at}"
    finer = " or ".join(_describe(option) for option in options(size, geometry))
    hint = f"for smaller ones use {finer}" if finer else "the images have no higher resolution"
    return f"{category}: {finding}; {hint}{_mask_sizes(visibility, row)}"


def _smallest_tested(visibility: Visibility, row: Mapping[str, Any]) -> dict[str, Any]:
    same_kind = (defect for defect in visibility.defects if defect["kind"] == row["kind"])
    return min(same_kind, key=itemgetter("cells"))


def _extent(row: Mapping[str, Any]) -> str:
    return f"{row['width']:.0f}x{row['height']:.0f} px"


def _describe(option: Option) -> str:
    tiles = f"{option.squares} tiles, " if option.squares > 1 else ""
    return f"{option.parameters} ({tiles}{option.times:.3g} times the time)"


def _mask_sizes(visibility: Visibility, row: Mapping[str, Any] | None) -> str:
    if not visibility.masks or row is None:
        return ""
    pixels, cells = visibility.masks["side"], visibility.masks["side_cells"]
    return (
        f". The defects with masks have {pixels['q10']:.0f} to {pixels['q90']:.0f} px "
        f"({cells['q10']:.1f} to {cells['q90']:.1f} latent cells; the middle 80 %)"
    )


def warnings(category: str, visibility: Visibility, config: VisibilityConfig) -> list[str]:
    """Warnings about lost colour, low PSNR and cropped parts of a category."""
    figures = visibility.figures
    result = []
    saturation = figures.get("saturation_kept")
    if saturation is not None and saturation < config.min_saturation:
        result.append(
            f"COLOUR IS LOST in {category}: the autoencoder keeps {100 * saturation:.0f} % of the "
            f"saturation (limit {100 * config.min_saturation:.0f} %), and defects of colour alone "
            f"cannot be found; {_other_autoencoder()}"
        )
    psnr = figures.get("psnr")
    if psnr is not None and psnr < config.min_psnr:
        result.append(
            f"IMAGES ARE NOT REPRODUCED in {category}: the autoencoder reaches a PSNR of "
            f"{psnr:.1f} dB (limit {config.min_psnr:g} dB); {_other_autoencoder()}, "
            "or use a larger preprocessing.image_size"
        )
    seen = figures.get("seen")
    if seen is not None and 1 - seen > config.max_cut_off:
        result.append(
            f"PARTS ARE CUT OFF in {category}: {100 * (1 - seen):.0f} % of an image are outside "
            "the model's input; use preprocessing.fit=letterbox or tile (docs/geometry.md)"
        )
    return result


def _other_autoencoder() -> str:
    return (
        f"fit an autoencoder to these images ({kedro_run('autoencoder')}, docs/autoencoder.md) "
        "or set autoencoder.source to another"
    )
