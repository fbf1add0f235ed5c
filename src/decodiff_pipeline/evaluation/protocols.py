"""Which label and which mask an image has, and what its pixels are measured by: two protocols."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.evaluation.ground_truth import GroundTruth, NativeMaps, image_sizes
from decodiff_pipeline.metrics.exact import PIXEL_METRICS, Metrics, pixel_metrics
from decodiff_pipeline.metrics.released_aupro import released_pixel_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.evaluation.config import EvaluationConfig, Protocol, Resolution
    from decodiff_pipeline.metrics.exact import Maps, Masks

logger = logging.getLogger(__name__)

PUBLISHED_SIZES = (288, 256)  # resize and image_size of the published tables


def labelled(
    rows: pd.DataFrame, images: ImageFolder, geometry: PreprocessConfig, protocol: Protocol
) -> pd.DataFrame:
    """Images with the labels that a protocol gives them.

    Args:
        rows: Manifest rows, or those of `PredictionStore.index`.
        images: Where the masks are.
        geometry: How images are fitted into squares.
        protocol: ``strict`` takes the labels as they are, so those of the whole images.
            ``released`` calls a defective test image good whose mask has no pixel in the crop; one
            without a mask keeps its label.

    Returns:
        The rows, in the same order, with another ``label`` where the protocol says so.
    """
    if protocol == "strict":
        return rows
    judged = rows[
        (rows["split"] == "test") & (rows["label"] == "defective") & rows["mask_path"].notna()
    ]
    truth = GroundTruth(judged, images, geometry, protocol)
    masks = (truth[i] for i in range(len(truth)))
    hidden = judged.index[[mask is None or not mask.any() for mask in masks]]
    return rows.assign(label=rows["label"].mask(rows.index.isin(hidden), "good"))


def compared(
    maps: Maps,
    rows: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    config: EvaluationConfig,
) -> tuple[Maps, Masks]:
    """Maps and masks pixel beside pixel, each made when it is asked for.

    Args:
        maps: Anomaly maps as the model gives them, one for each row.
        rows: Images of which every pixel's truth is known (`masks.with_ground_truth`), labelled.
        images: Where the masks are.
        geometry: How images were fitted into squares.
        config: Protocol and resolution.

    Returns:
        Maps and masks at the size of the model's maps, or of the part of the images that the model
        saw.
    """
    if config.resolution == "native":
        maps = NativeMaps(maps, image_sizes(rows), geometry)
    return maps, GroundTruth(rows, images, geometry, config.protocol, config.resolution)


def measure_pixels(
    maps: Maps,
    rows: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    config: EvaluationConfig,
) -> Metrics:
    """Pixel metrics of one category by the protocol of the configuration.

    Args:
        maps: See `compared`.
        rows: The same.
        images: The same.
        geometry: The same.
        config: Protocol, resolution and limit of AUPRO.

    Returns:
        See `metrics.pixel_metrics`; all ``None`` where no row is defective.
    """
    if not (rows["label"] == "defective").any():
        return dict.fromkeys(PIXEL_METRICS)
    measure = pixel_metrics if config.protocol == "strict" else released_pixel_metrics
    return measure(*compared(maps, rows, images, geometry, config), limit=config.aupro_limit)


def require_same_protocol(
    result: Mapping[str, Any], name: str, protocol: Protocol, resolution: Resolution = "model"
) -> None:
    """Refuse to put results of two protocols or of two resolutions side by side.

    Args:
        result: Of an earlier node, with the keys ``protocol`` and ``resolution``.
        name: Of its data set.
        protocol: That is asked for.
        resolution: That is asked for.

    Raises:
        DataError: The result is by another one.
    """
    for key, wanted in (("protocol", protocol), ("resolution", resolution)):
        made_by = result.get(key, wanted)
        if made_by != wanted:
            raise DataError(
                f"the data set {name} was measured by the {key} {made_by!r}, but "
                f"evaluation.{key} is {wanted!r}: run {kedro_run('evaluation')} "
                "--from-nodes measure_baselines,measure_synthetic_localisation,compute_metrics"
            )


def warn_of_other_sizes(geometry: PreprocessConfig, protocol: Protocol) -> None:
    """Say so where ``released`` figures are not those of the tables they will be held against."""
    sizes = (geometry.resize, geometry.image_size)
    if protocol == "released" and (*sizes, geometry.fit) != (*PUBLISHED_SIZES, "stretch"):
        logger.warning(
            "the published tables are of images resized to %d² and cropped to %d² (fit stretch), "
            "these are resized to %d and cropped to %d² (fit %s): do not compare the figures",
            *(*PUBLISHED_SIZES, *sizes, geometry.fit),
        )
