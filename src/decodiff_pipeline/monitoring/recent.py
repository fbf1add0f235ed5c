"""Measures the features of recent images."""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from decodiff_pipeline.data.decoding import MAX_PIXELS
from decodiff_pipeline.data.file_names import nfc
from decodiff_pipeline.data.read_ahead import read_ahead
from decodiff_pipeline.deco.colour import FULL_DEPTH
from decodiff_pipeline.errors import DataError, ImageError
from decodiff_pipeline.evaluation.predict import ModelInput, model_input, predict, progress
from decodiff_pipeline.monitoring.features import LatentSpace, Photograph, describe, features
from decodiff_pipeline.monitoring.reference import reference_sha256, require_same_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from decodiff_pipeline.monitoring.config import MonitoringConfig
    from decodiff_pipeline.monitoring.source import RecentSource

logger = logging.getLogger(__name__)

# Columns of the measurements; `row` is the index in the table of images.
MEASURED = ("row", "category", "score", "descriptor", "quality")


def measure_recent(
    model: Any,
    reference: Mapping[str, Any],
    source: RecentSource,
    config: MonitoringConfig,
    max_pixels: int = MAX_PIXELS,
) -> pd.DataFrame:
    """Measure recent images.

    Args:
        reference: See `make_reference`.

    Returns:
        A row for each image, also for unreadable ones and unknown categories: ``category``,
        ``path``, ``error`` (empty if readable), ``known`` (whether the reference has the category)
        and the features, NaN if not measured.

    Raises:
        DataError: There is no image, none of a known category, or the reference belongs to another
            model.
    """
    require_same_model(reference, model)
    rows = source.rows(
        config.category, scores_of=reference_sha256(reference), last_days=config.last_days
    )
    known = _known(rows, reference, source)
    samples = [
        group.sample(min(len(group), config.max_images), random_state=config.seed).sort_index()
        for _, group in rows[known].groupby("category", sort=True)
    ]
    sampled = pd.concat(samples).assign(known=True, error="")
    # A row without an image has only its score from the table.
    parts = [rows[~known].assign(known=False, error=""), sampled[sampled["path"] == ""]]
    images = sampled[sampled["path"] != ""].drop(columns="score").reset_index(drop=True)
    measured, errors = _measure(model, images, source, reference, config, max_pixels)
    images.loc[list(errors), "error"] = list(errors.values())
    for name, group in measured.groupby("category", sort=False):
        space = LatentSpace.from_dict(reference["categories"][name]["space"])
        scores, descriptors, quality = (group[column].tolist() for column in MEASURED[2:])
        table = features(space, scores, np.stack(descriptors), quality)
        parts.append(images.loc[group["row"]].reset_index(drop=True).join(table))
    return pd.concat([*parts, images.loc[list(errors)]], ignore_index=True)


def _known(rows: pd.DataFrame, reference: Mapping[str, Any], source: RecentSource) -> pd.Series:
    """Whether the reference has a row's category; sets the reference's spelling of categories."""
    spelling = {nfc(name): name for name in reference["categories"]}
    rows["category"] = [spelling.get(nfc(name), name) for name in rows["category"]]
    known = rows["category"].isin(reference["categories"])
    if not known.any():
        raise DataError(
            f"no image of monitoring.source {source.path} is of a category that the model's "
            f"reference has ({', '.join(reference['categories'])}); the first is of "
            f"{rows['category'].iloc[0]!r}: rename the folder, or set monitoring.category"
        )
    return known


def _measure(
    model: Any,
    rows: pd.DataFrame,
    source: RecentSource,
    reference: Mapping[str, Any],
    config: MonitoringConfig,
    max_pixels: int,
) -> tuple[pd.DataFrame, dict[int, str]]:
    """Measurements of the images, and the errors of unreadable images by row."""
    geometry, side, depths = model.preprocessing, model.image_size, model.bit_depths
    regions = model.regions
    measured: list[tuple[Any, ...]] = []
    errors: dict[int, str] = {}

    def read(row: Any) -> ModelInput | ImageError:
        try:
            image = source.read(row.path, depths.get(row.category, FULL_DEPTH), max_pixels)
            inputs = model_input(image, row.path, row.category, geometry)
        except ImageError as error:
            return error
        photograph = Photograph.of(image, side, regions.get(row.category))
        return replace(inputs, about=(row.Index, photograph))

    def readable(inputs: Iterable[ModelInput | ImageError]) -> Iterator[ModelInput]:
        for number, result in enumerate(inputs):
            if isinstance(result, ModelInput):
                yield result
            else:
                logger.warning("skipped: %s", result)
                errors[number] = str(result)
                bar.update()

    steps = reference["model"]["num_inference_steps"]
    with (
        progress(len(rows), "monitoring") as bar,
        closing(read_ahead(read, rows.itertuples())) as inputs,
    ):
        batches = predict(model, readable(inputs), bar, batch_size=config.batch_size, steps=steps)
        for batch in batches:
            photographs = [prediction.image.about for prediction in batch]
            descriptors = describe(model, [photograph.square for _, photograph in photographs])
            for prediction, (row, photograph), descriptor in zip(
                batch, photographs, descriptors, strict=True
            ):
                category, score = prediction.image.category, float(prediction.score)
                measured.append((row, category, score, descriptor, photograph.quality))
    return pd.DataFrame(measured, columns=list(MEASURED)), errors
