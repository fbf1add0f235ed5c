"""Sentences on what is invisible to the model, and on the parameters that would show it."""

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

FINER = 2  # times the pixels along a side that an option proposes, where images have them


@dataclass(frozen=True)
class Option:
    """Other preprocessing under which smaller defects are visible."""

    parameters: str  # what ``--params`` would be given
    squares: int  # how many squares an image gives
    times: float  # how many times the time of an image it takes
    # Pixels of the model's input per pixel of the image, over the number now; the smaller one of
    # across and down.
    finer: float


def options(size: tuple[int, int], geometry: PreprocessConfig) -> list[Option]:
    """What shows details that are half the size, as far as the images have them.

    The time is taken to grow with the number of pixels in all squares, which leaves out that
    attention grows faster and that the network's small layers do not fill a processor.
    """
    now = model_scale(size, geometry)
    if min(now) >= 1:
        return []
    found = []
    for changed in _changes(size, geometry, min(FINER, 1 / min(now))):
        scale = model_scale(size, changed)
        finer = min(new / old for new, old in zip(scale, now, strict=True))
        if finer > 1:
            squares = square_count(size, changed)
            before = square_count(size, geometry) * geometry.image_size**2
            times = squares * changed.image_size**2 / before
            found.append(Option(_given(changed, geometry), squares, times, finer))
    return found


def _changes(
    size: tuple[int, int], geometry: PreprocessConfig, factor: float
) -> list[PreprocessConfig]:
    """Geometries with this many times the pixels along a side, and no more than images have."""
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


def _given(changed: PreprocessConfig, geometry: PreprocessConfig) -> str:
    names = ("fit", "image_size", "resize")
    parts = [
        f"preprocessing.{name}={getattr(changed, name)}"
        for name in names
        if getattr(changed, name) != getattr(geometry, name)
    ]
    if changed.fit == "tile" != geometry.fit:
        # Places mean nothing among tiles; the two together are refused.
        parts.append("scoring.discrepancy.normalisation=none")
    return ",".join(parts)


def answer(
    category: str,
    found: Visibility,
    geometry: PreprocessConfig,
    config: VisibilityConfig,
) -> str:
    """What of a category is invisible at the configured size, and what would show it."""
    at = f"at {geometry.image_size}²"
    if not found.figures["images"]:
        return f"{category}: not measured, because it has no good val image"
    if not found.defects:
        return f"{category}: not measured, because images are too thin {at} for a defect"
    row = smallest_row(found.defects, f"grey_{config.contrast}")
    size = (round(found.figures["width"]), round(found.figures["height"]))
    if row is None:
        finding = f"no defect of contrast {config.contrast} that was tried is visible {at}"
    elif row is _smallest_tried(found, row):
        finding = (
            f"defects of contrast {config.contrast} are visible {at} down to "
            f"{_extent(row)}, the smallest tried"
        )
    else:
        finding = f"defects below {_extent(row)} of contrast {config.contrast} are invisible {at}"
    better = options(size, geometry)
    cures = " or ".join(map(_described, better))
    hint = f"for smaller ones use {cures}" if better else "the images have no more pixels than that"
    return f"{category}: {finding}; {hint}{_of_masks(found, row)}"


def _smallest_tried(found: Visibility, row: Mapping[str, Any]) -> dict[str, Any]:
    same_kind = (one for one in found.defects if one["kind"] == row["kind"])
    return min(same_kind, key=itemgetter("cells"))


def _extent(row: Mapping[str, Any]) -> str:
    return f"{row['width']:.0f}x{row['height']:.0f} px"


def _described(option: Option) -> str:
    tiles = f"{option.squares} tiles, " if option.squares > 1 else ""
    return f"{option.parameters} ({tiles}{option.times:.3g} times the time)"


def _of_masks(found: Visibility, row: Mapping[str, Any] | None) -> str:
    """How the defects that have masks compare, where there are any."""
    if not found.masks or row is None:
        return ""
    masks = found.masks["side"]
    return (
        f". The defects with masks have {masks['q10']:.0f} to {masks['q90']:.0f} px "
        f"({found.masks['side_cells']['q10']:.1f} to {found.masks['side_cells']['q90']:.1f} "
        "latent cells; the middle 80 %)"
    )


def warnings(category: str, found: Visibility, config: VisibilityConfig) -> list[str]:
    """What is lost whatever the size of a defect: colour, the image as such, or parts of it."""
    figures = found.figures
    lost = []
    kept = figures.get("saturation_kept")
    if kept is not None and kept < config.min_saturation:
        lost.append(
            f"COLOUR IS LOST in {category}: the autoencoder keeps {100 * kept:.0f} % of the "
            f"saturation (limit {100 * config.min_saturation:.0f} %), and defects of colour alone "
            f"cannot be found; {_other_autoencoder()}"
        )
    quality = figures.get("psnr")
    if quality is not None and quality < config.min_psnr:
        lost.append(
            f"IMAGES ARE NOT REPRODUCED in {category}: the autoencoder reaches a PSNR of "
            f"{quality:.1f} dB (limit {config.min_psnr:g} dB); {_other_autoencoder()}, "
            "or use a larger preprocessing.image_size"
        )
    seen = figures.get("seen")
    if seen is not None and 1 - seen > config.max_cut_off:
        lost.append(
            f"PARTS ARE CUT OFF in {category}: {100 * (1 - seen):.0f} % of an image lie outside of "
            "what the model sees; use preprocessing.fit=letterbox or tile (docs/geometry.md)"
        )
    return lost


def _other_autoencoder() -> str:
    return (
        f"fit an autoencoder to these images ({kedro_run('autoencoder')}, docs/autoencoder.md) "
        "or name another as autoencoder.source"
    )
