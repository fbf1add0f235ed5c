"""The two evaluation protocols: labels, masks and pixel metrics of test images."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.deco.geometry import plan, to_original
from decodiff_pipeline.deco.preprocess import resize_mask
from decodiff_pipeline.deco.regions import EVERYTHING
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.metrics.exact import PIXEL_METRICS, Metrics, OnDemand, pixel_metrics
from decodiff_pipeline.metrics.released_aupro import released_pixel_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.deco.regions import Region
    from decodiff_pipeline.evaluation.config import EvaluationConfig, Protocol, Resolution
    from decodiff_pipeline.metrics.threshold_counts import Maps, Masks

logger = logging.getLogger(__name__)

PUBLISHED_SIZES = (288, 256)  # resize and image_size of the published tables


def labelled(
    rows: pd.DataFrame, images: ImageFolder, geometry: PreprocessConfig, protocol: Protocol
) -> pd.DataFrame:
    """Images with the labels of a protocol.

    Args:
        rows: Manifest rows, or those of `PredictionStore.index`.
        protocol: ``strict`` keeps the labels, which are those of the whole images. ``released``
            labels defective test images good if their mask is empty in the crop; images without
            a mask keep their label.

    Returns:
        The rows, in the same order, with the protocol's ``label``.
    """
    if protocol == "strict":
        return rows
    judged = rows[(rows["split"] == "test") & have_defect_masks(rows)]
    truth = ground_truth(judged, images, geometry, protocol)
    masks = (truth[i] for i in range(len(truth)))
    hidden = judged.index[[mask is None or not mask.any() for mask in masks]]
    return rows.assign(label=rows["label"].mask(rows.index.isin(hidden), "good"))


def labelled_inside(
    rows: pd.DataFrame, images: ImageFolder, regions: Mapping[str, Region]
) -> pd.DataFrame:
    """Images with the labels that follow from the regions.

    A defective image is good if its mask is empty in the category's region. Images without a mask
    and categories without a region keep their labels.
    """
    if not regions:
        return rows
    judged = rows[have_defect_masks(rows) & rows["category"].isin(regions)]
    hidden = []
    for path, category in zip(judged["mask_path"], judged["category"], strict=True):
        mask = images.read_mask(str(path))
        height, width = mask.shape
        hidden.append(not (mask & regions[category].at((width, height))).any())
    outside = judged.index[hidden]
    return rows.assign(label=rows["label"].mask(rows.index.isin(outside), "good"))


def have_defect_masks(rows: pd.DataFrame) -> pd.Series:
    """Which images are defective and have a mask, bool (N,)."""
    return (rows["label"] == "defective") & rows["mask_path"].notna()


def with_ground_truth(rows: pd.DataFrame) -> pd.DataFrame:
    """The images with known pixel labels: good ones, and defective ones with a mask."""
    return rows[(rows["label"] == "good") | have_defect_masks(rows)]


def compared(
    maps: Maps,
    rows: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    config: EvaluationConfig,
    regions: Mapping[str, Region],
) -> tuple[Maps, Masks]:
    """Maps and masks of equal size, computed on access.

    Args:
        maps: The model's anomaly maps, one for each row.
        rows: Images with known pixel labels (`with_ground_truth`), labelled by the protocol.
        regions: Category → its region; without one the whole image counts.

    Returns:
        Both at the size of the model's maps, or (``native``) of the part of the original image
        that the model saw. With a region, maps are masked arrays, and defects are cut to it.
    """
    row_regions = [regions.get(category) for category in rows["category"]]
    sizes = image_sizes(rows) if config.resolution == "native" or any(row_regions) else []
    if config.resolution == "native":
        maps = native_maps(maps, sizes, geometry)
    masks = ground_truth(rows, images, geometry, config.protocol, config.resolution)
    if not any(row_regions):
        return maps, masks

    def inside(index: int) -> np.ndarray:
        region, size = row_regions[index] or EVERYTHING, sizes[index]
        if config.resolution == "native":
            return region.at(size)[plan(size, geometry).seen]
        return region.in_map(size, geometry)

    def counted(index: int) -> np.ndarray:
        return np.ma.masked_array(maps[index], ~inside(index))

    def defect(index: int) -> np.ndarray | None:
        mask = masks[index]
        return None if mask is None else mask & inside(index)

    return OnDemand(len(row_regions), counted), OnDemand(len(row_regions), defect)


def measure_pixels(
    maps: Maps,
    rows: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    config: EvaluationConfig,
    regions: Mapping[str, Region],
) -> Metrics:
    """Pixel metrics of one category by the configured protocol; arguments as of `compared`.

    Returns:
        See `exact.pixel_metrics`; all ``None`` if no row is defective.
    """
    if not (rows["label"] == "defective").any():
        return dict.fromkeys(PIXEL_METRICS)
    measure = pixel_metrics if config.protocol == "strict" else released_pixel_metrics
    pixels = compared(maps, rows, images, geometry, config, regions)
    return measure(*pixels, limit=config.aupro_limit)


def ground_truth(
    rows: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    protocol: Protocol = "strict",
    resolution: Resolution = "model",
) -> Masks:
    """Masks of images, bool (h, w); ``None`` for good images.

    Args:
        rows: Images with known pixel labels (`with_ground_truth`).
        resolution: ``native``: masks are not resized, but cut to what the model saw.
    """
    named = rows["mask_path"].where(rows["label"] == "defective")
    paths = [None if pd.isna(path) else str(path) for path in named]

    def read(index: int) -> np.ndarray | None:
        path = paths[index]
        if path is None:
            return None
        mask = images.read_mask(path)
        if resolution == "native":
            return native_mask(mask, geometry)
        return mask_by(protocol, mask, geometry)

    return OnDemand(len(paths), read)


def native_maps(
    maps: Maps, sizes: Sequence[tuple[int, int]], geometry: PreprocessConfig
) -> OnDemand[np.ndarray]:
    """Maps resized to the original images and cut to what the model saw, float32."""

    def enlarge(index: int) -> np.ndarray:
        full = to_original(maps[index], sizes[index], geometry)
        return full[plan(sizes[index], geometry).seen]

    return OnDemand(len(sizes), enlarge)


def image_sizes(rows: pd.DataFrame) -> list[tuple[int, int]]:
    """Width and height of images in pixels, from their manifest rows."""
    return [(int(width), int(height)) for width, height in zip(rows["width"], rows["height"])]


def mask_by(protocol: Protocol, mask: np.ndarray, geometry: PreprocessConfig) -> np.ndarray:
    """Resize a mask, bool (H, W), to the size of the maps: `resize_mask` or `released_mask`."""
    return (resize_mask if protocol == "strict" else released_mask)(mask, geometry)


def released_mask(mask: np.ndarray, geometry: PreprocessConfig) -> np.ndarray:
    """Resize a mask as the released code: bicubic, cropped, every pixel above zero defective.

    Defects grow by a few pixels on each side.
    """
    height, width = mask.shape
    down, across = layout = plan((width, height), geometry)
    picture = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    resized = picture.resize((across.scaled, down.scaled), Image.Resampling.BICUBIC)
    return np.asarray(resized)[layout.content] > 0


def native_mask(mask: np.ndarray, geometry: PreprocessConfig) -> np.ndarray:
    """The part of a mask, bool (H, W), that the model saw."""
    height, width = mask.shape
    return mask[plan((width, height), geometry).seen]


def cropped_share(geometry: PreprocessConfig, rows: pd.DataFrame) -> float:
    """Share of an image's area that is cropped off, mean over the images, within 0…1."""
    if not geometry.crops:
        return 0.0
    # With ``stretch`` all images have the same geometry.
    sizes = (image_sizes(rows) if geometry.fit == "crop" else []) or [(1, 1)]
    plans = [plan(size, geometry) for size in sizes]
    shown = [np.prod(one.map_shape) / (one.down.scaled * one.across.scaled) for one in plans]
    return float(1 - np.mean(shown))


def cropped_defects(
    rows: pd.DataFrame, images: ImageFolder, geometry: PreprocessConfig
) -> dict[str, Any] | None:
    """The part of the defects, in the original masks, that lies outside the crop.

    A pixel is outside if its centre is, after resizing.

    Args:
        rows: Test images of one category, with the labels of the manifest.

    Returns:
        ``pixel_share``: share of the defective pixels outside, within 0…1; ``n_images``: number
        of images whose defects are entirely outside; ``None`` without a crop or without masks.
    """
    masked = rows[have_defect_masks(rows)]
    if not geometry.crops or masked.empty:
        return None
    total = outside = hidden = 0
    for path in masked["mask_path"]:
        mask = images.read_mask(str(path))
        pixels, seen = int(mask.sum()), int(native_mask(mask, geometry).sum())
        total += pixels
        outside += pixels - seen
        hidden += seen == 0
    return {"pixel_share": outside / total if total else None, "n_images": hidden}


def require_same_protocol(
    result: Mapping[str, Any], name: str, protocol: Protocol, resolution: Resolution = "model"
) -> None:
    """Check that an earlier node's result has the configured protocol and resolution.

    Raises:
        DataError: The protocol or the resolution is another one.
    """
    for key, expected in (("protocol", protocol), ("resolution", resolution)):
        used = result.get(key, expected)
        if used != expected:
            raise DataError(
                f"the data set {name} was measured with the {key} {used!r}, but "
                f"evaluation.{key} is {expected!r}: run {kedro_run('evaluation')} "
                "--from-nodes measure_baselines,measure_synthetic_localisation,compute_metrics"
            )


def warn_of_other_sizes(geometry: PreprocessConfig, protocol: Protocol) -> None:
    """Log that ``released`` metrics are not comparable with the published tables."""
    sizes = (geometry.resize, geometry.image_size)
    if protocol == "released" and (*sizes, geometry.fit) != (*PUBLISHED_SIZES, "stretch"):
        logger.warning(
            "the published tables are of images resized to %d² and cropped to %d² (fit stretch), "
            "these are resized to %d and cropped to %d² (fit %s): do not compare the figures",
            *(*PUBLISHED_SIZES, *sizes, geometry.fit),
        )
