"""The visibility check: measures reconstructions, synthetic defects and masks of a category."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from decodiff_pipeline.data.layouts.base import DEFECTIVE, GOOD
from decodiff_pipeline.data.transforms import plain_square
from decodiff_pipeline.deco.autoencoder import reduction
from decodiff_pipeline.deco.geometry import plan
from decodiff_pipeline.deco.preprocess import EIGHT_CONNECTED, to_tensor
from decodiff_pipeline.metrics.reconstruction import has_colour
from decodiff_pipeline.visibility.defects import (
    Kind,
    places,
    samples,
    survival,
    with_defects,
)
from decodiff_pipeline.visibility.fidelity import fidelity, reconstruct

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.autoencoder import Autoencoder
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.visibility.config import VisibilityConfig
    from decodiff_pipeline.visibility.defects import Box
    from decodiff_pipeline.visibility.fidelity import Reconstructed

QUANTILES = {"q10": 0.1, "median": 0.5, "q90": 0.9}
SPECKLE = 4  # pixels; smaller regions of a mask are compression artefacts


@dataclass(frozen=True)
class Picture:
    """An image and its reconstruction, both (S, S, 3)."""

    caption: str
    before: np.ndarray  # uint8
    after: np.ndarray  # float in grey levels


@dataclass(frozen=True)
class Visibility:
    """Measurements of one category."""

    # ``images``, ``psnr``, ``psnr_min``, ``saturation_kept``, ``sharpness_kept`` (means over
    # images), ``width``, ``height`` (medians, pixels), ``seen`` (share of an image inside the
    # model's squares), and for each kind of defect ``visible_grey_32`` etc., the smallest visible
    # side in pixels of the original image. None if not measured or if no defect is visible.
    figures: dict[str, Any]
    # A row for each kind and size: ``kind``, ``contrast``, ``colour``, ``cells``, ``model_pixels``,
    # ``width`` and ``height`` in pixels of the original image, ``share``, ``snr``, ``count``,
    # ``visible``
    defects: list[dict[str, Any]]
    masks: dict[str, Any]  # sizes of the masks' regions; empty without masks
    pictures: list[Picture] = field(default_factory=list)  # for the report


def measure_category(
    rows: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    autoencoder: Autoencoder,
    config: VisibilityConfig,
) -> Visibility:
    """Measure one category on good val images; nothing is fitted to labels.

    Encodes and decodes ``images`` · (1 + number of ``sizes``) squares.

    Raises:
        ImageError: An image or a mask cannot be read.
    """
    cell = reduction(autoencoder)
    held_out = rows[(rows["split"] == "val") & (rows["label"] == GOOD)]
    sample = held_out.drop_duplicates("sha256").sort_values("sha256").head(config.images)
    sizes = list(zip(sample["width"], sample["height"], strict=True))
    masks = mask_sizes(rows, images, geometry, cell, config.masks)
    if not sizes:
        return Visibility({"images": 0}, [], masks)
    squares = [
        plain_square(images.read(path), geometry, sha256)
        for path, sha256 in zip(sample["path"], sample["sha256"], strict=True)
    ]
    good = reconstruct(autoencoder, squares, config.batch_size)
    kinds = [Kind(contrast) for contrast in config.contrasts]
    if has_colour(to_tensor(squares), config.min_colour).any():
        kinds.append(Kind(config.colour_contrast, colour=True))
    inputs = _Inputs(good, list(sample["sha256"]), [_box(s, geometry) for s in sizes])
    scale = np.median([model_scale(size, geometry) for size in sizes], axis=0)
    defects, defect_pictures = _defects(inputs, kinds, scale, cell, autoencoder, config)
    pictures = [Picture(path, *square) for path, square in zip(sample["path"], good, strict=True)]
    figures = {
        **_fidelity(good, config.min_colour),
        "width": float(np.median(sample["width"])),
        "height": float(np.median(sample["height"])),
        "seen": _mean([_seen(size, geometry) for size in sizes]),
        **{f"visible_{kind.name}": smallest_visible(defects, kind.name) for kind in kinds},
    }
    return Visibility(figures, defects, masks, [*pictures[: config.pictures], *defect_pictures])


def _fidelity(squares: list[Reconstructed], min_colour: int) -> dict[str, Any]:
    values = [fidelity(square, min_colour) for square in squares]
    return {
        "images": len(squares),
        "psnr": _mean([value.psnr for value in values]),
        "psnr_min": round(min(value.psnr for value in values), 3),
        "saturation_kept": _mean([value.saturation_kept for value in values]),
        "sharpness_kept": _mean([value.sharpness_kept for value in values]),
    }


def smallest_visible(defects: Sequence[dict[str, Any]], kind: str) -> float | None:
    """Side of `smallest_row` in pixels of the original image, or None.

    The side is the square root of width times height, whose scales may differ.
    """
    row = smallest_row(defects, kind)
    return None if row is None else round(float(np.sqrt(row["width"] * row["height"])), 1)


def smallest_row(defects: Sequence[dict[str, Any]], kind: str) -> dict[str, Any] | None:
    """The row of the smallest defect of a kind such that it and all larger ones are visible."""
    smallest = None
    rows = [row for row in defects if row["kind"] == kind]
    for row in sorted(rows, key=itemgetter("cells"), reverse=True):
        if not row["visible"]:
            break
        smallest = row
    return smallest


def model_scale(size: tuple[int, int], geometry: PreprocessConfig) -> tuple[float, float]:
    """Pixels of the model's input per pixel of the image, in x and y."""
    down, across = plan(size, geometry)
    return across.scaled / across.length, down.scaled / down.length


@dataclass(frozen=True)
class _Inputs:
    good: list[Reconstructed]
    identities: list[str]
    boxes: list[Box]


def _defects(
    inputs: _Inputs,
    kinds: list[Kind],
    scale: np.ndarray,
    cell: int,
    autoencoder: Autoencoder,
    config: VisibilityConfig,
) -> tuple[list[dict[str, Any]], list[Picture]]:
    """A row for each kind and size, and pictures of the sizes of at least one latent cell."""
    table: list[dict[str, Any]] = []
    pictures: list[Picture] = []
    for cells in config.sizes:
        side = max(1, round(cells * cell))
        positions = [
            places(identity, box, side, len(kinds))
            for identity, box in zip(inputs.identities, inputs.boxes, strict=True)
        ]
        usable = [(number, boxes) for number, boxes in enumerate(positions) if boxes is not None]
        if not usable:
            continue
        squares = [with_defects(inputs.good[n].image, kinds, boxes) for n, boxes in usable]
        defective = reconstruct(autoencoder, squares, config.batch_size)
        image_samples = [
            list(samples(inputs.good[n], square, boxes))
            for (n, boxes), square in zip(usable, defective, strict=True)
        ]
        for index, kind in enumerate(kinds):
            result = survival(kind, side, [of_image[index] for of_image in image_samples])
            if result is not None:
                visible = result.snr >= config.min_snr and result.share >= config.min_share
                table.append(
                    {"kind": kind.name, "contrast": kind.contrast, "colour": kind.colour,
                     "cells": cells, "model_pixels": side,
                     "width": round(side / scale[0], 1), "height": round(side / scale[1], 1),
                     "share": round(result.share, 3), "snr": round(result.snr, 2),
                     "count": result.count, "visible": bool(visible)}
                )  # fmt: skip
        if cells >= 1:
            caption = f"with synthetic defects of {side} pixels of the model's input"
            pictures.append(Picture(caption, *defective[0]))
    return table, pictures


def mask_sizes(
    rows: pd.DataFrame, images: ImageFolder, geometry: PreprocessConfig, cell: int, limit: int
) -> dict[str, Any]:
    """Sizes of the connected regions of a category's masks.

    Args:
        cell: Side of a latent cell in pixels of the model's input.
        limit: Largest number of masks, evenly sampled from the category.

    Returns:
        ``masks`` and ``regions`` (counts), and quantiles ``q10``, ``median`` and ``q90`` of
        ``side`` (square root of the area) and ``width`` (at the thickest point) in pixels of the
        original image, and of ``side_cells`` and ``width_cells`` in latent cells; {} without masks.
    """
    masked = rows[(rows["label"] == DEFECTIVE) & rows["mask_path"].notna()]
    masked = masked.iloc[:: max(1, -(-len(masked) // limit))] if limit else masked.head(0)
    found = []
    for path in masked["mask_path"]:
        mask = images.read_mask(path)
        across, down = model_scale((mask.shape[1], mask.shape[0]), geometry)
        labels, count = ndimage.label(mask, structure=EIGHT_CONNECTED)
        for region, window in enumerate(ndimage.find_objects(labels, count), start=1):
            inside = np.pad(labels[window] == region, 1)
            if inside.sum() >= SPECKLE:
                side = float(np.sqrt(inside.sum()))
                width = 2 * float(ndimage.distance_transform_edt(inside).max()) - 1
                ratio = float(np.sqrt(across * down)) / cell
                found.append((side, width, side * ratio, width * ratio))
    if not found:
        return {}
    columns = dict(
        zip(("side", "width", "side_cells", "width_cells"), np.array(found).T, strict=True)
    )
    return {
        "masks": len(masked),
        "regions": len(found),
        **{
            name: {key: round(float(np.quantile(values, q)), 3) for key, q in QUANTILES.items()}
            for name, values in columns.items()
        },
    }


def _box(size: tuple[int, int], geometry: PreprocessConfig) -> Box:
    """The part of the square that shows the image, without padding."""
    if geometry.fit == "letterbox":
        return plan(size, geometry).shown
    side = slice(0, geometry.image_size)
    return side, side


def _seen(size: tuple[int, int], geometry: PreprocessConfig) -> float:
    rows, columns = plan(size, geometry).seen
    return (rows.stop - rows.start) * (columns.stop - columns.start) / (size[0] * size[1])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 3) if known else None
