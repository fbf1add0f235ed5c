"""Measuring recent images the way those of the reference were."""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

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


def measure_recent(
    model: Any,
    reference: Mapping[str, Any],
    source: RecentSource,
    config: MonitoringConfig,
    max_pixels: int = MAX_PIXELS,
) -> pd.DataFrame:
    """Measure recent images; one that cannot be read, or is of an unknown category, is a row too.

    Args:
        reference: As `make_reference` returned it.
        config: Category, most images, batch size.

    Returns:
        Columns ``category``, ``path``, ``error`` (empty where all is well), ``known`` (whether the
        reference has the category) and the features, NaN where they are not to be had.

    Raises:
        DataError: There is no image, none of a known category, or the reference is another
            model's.
    """
    require_same_model(reference, model)
    rows = source.rows(
        config.category, scores_of=reference_sha256(reference), last_days=config.last_days
    )
    known = _known(rows, reference, source)
    drawn = [
        group.sample(min(len(group), config.max_images), random_state=config.seed).sort_index()
        for _, group in rows[known].groupby("category", sort=True)
    ]
    chosen = pd.concat(drawn).assign(known=True, error="")
    # A row without a picture has its score from the table.
    parts = [rows[~known].assign(known=False, error=""), chosen[chosen["path"] == ""]]
    pictured = chosen[chosen["path"] != ""].drop(columns="score").reset_index(drop=True)
    measured, errors = _measured(model, pictured, source, reference, config, max_pixels)
    pictured.loc[list(errors), "error"] = list(errors.values())
    for name, found in measured.items():
        space = LatentSpace.from_dict(reference["categories"][name]["space"])
        table = features(
            space,
            [one.score for one in found],
            np.stack([one.descriptor for one in found]),
            [one.quality for one in found],
        )
        parts.append(pictured.loc[[one.row for one in found]].reset_index(drop=True).join(table))
    return pd.concat([*parts, pictured.loc[list(errors)]], ignore_index=True)


def _known(rows: pd.DataFrame, reference: Mapping[str, Any], source: RecentSource) -> pd.Series:
    """Which rows are of a category of the reference; categories get the reference's spelling."""
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


class _Measured(NamedTuple):
    """What was found in an image."""

    row: int
    score: float
    descriptor: np.ndarray
    quality: dict[str, float]


def _measured(
    model: Any,
    rows: pd.DataFrame,
    source: RecentSource,
    reference: Mapping[str, Any],
    config: MonitoringConfig,
    max_pixels: int,
) -> tuple[dict[str, list[_Measured]], dict[int, str]]:
    """What is found in the images of each category, and why others cannot be read, by row."""
    geometry, side, depths = model.preprocessing, model.image_size, model.bit_depths
    regions = model.regions
    found: dict[str, list[_Measured]] = {}
    errors: dict[int, str] = {}

    def read(row: Any) -> ModelInput | ImageError:
        try:
            image = source.read(row.path, depths.get(row.category, FULL_DEPTH), max_pixels)
            given = model_input(image, row.path, row.category, geometry)
        except ImageError as error:
            return error
        return replace(
            given, about=(row.Index, Photograph.of(image, side, regions.get(row.category)))
        )

    def readable(inputs: Iterable[ModelInput | ImageError]) -> Iterator[ModelInput]:
        for number, one in enumerate(inputs):
            if isinstance(one, ModelInput):
                yield one
            else:
                logger.warning("left out: %s", one)
                errors[number] = str(one)
                bar.update()

    steps = reference["model"]["num_inference_steps"]
    with (
        progress(len(rows), "monitoring") as bar,
        closing(read_ahead(read, rows.itertuples())) as inputs,
    ):
        batches = predict(model, readable(inputs), bar, batch_size=config.batch_size, steps=steps)
        for batch in batches:
            abouts = [one.image.about for one in batch]
            descriptors = describe(model, [photograph.square for _, photograph in abouts])
            for one, (row, photograph), descriptor in zip(batch, abouts, descriptors, strict=True):
                known = found.setdefault(one.image.category, [])
                known.append(_Measured(row, float(one.score), descriptor, photograph.quality))
    return found, errors
