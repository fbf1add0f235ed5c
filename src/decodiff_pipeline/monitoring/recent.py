"""Measuring recent images the way those of the reference were."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm import tqdm

from decodiff_pipeline.data.decoding import MAX_PIXELS
from decodiff_pipeline.data.file_names import nfc
from decodiff_pipeline.deco.colour import FULL_DEPTH
from decodiff_pipeline.errors import DataError, ImageError
from decodiff_pipeline.monitoring.features import measure
from decodiff_pipeline.monitoring.latent_space import LatentSpace
from decodiff_pipeline.monitoring.reference import reference_sha256, require_same_model

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        model: The trained pipeline.
        reference: As `make_reference` returned it.
        source: The images.
        config: Category, most images, batch size.
        max_pixels: Largest width times height of an image.

    Returns:
        Columns ``category``, ``path``, ``error`` (empty where all is well), ``known`` (whether the
        reference has the category) and the features, NaN where they are not to be had.

    Raises:
        DataError: There is no image, none of a known category, or the reference is another
            model's.
    """
    require_same_model(reference, model)
    if hasattr(model, "set_progress_bar_config"):
        model.set_progress_bar_config(disable=True)
    rows = source.rows(
        config.category, scores_of=reference_sha256(reference), last_days=config.last_days
    )
    spelling = {nfc(name): name for name in reference["categories"]}
    rows["category"] = [spelling.get(nfc(name), name) for name in rows["category"]]
    known = rows["category"].isin(reference["categories"])
    if not known.any():
        raise DataError(
            f"no image of monitoring.source {source.path} is of a category that the model's "
            f"reference has ({', '.join(reference['categories'])}); the first is of "
            f"{rows['category'].iloc[0]!r}: rename the folder, or set monitoring.category"
        )
    parts = [rows[~known].assign(known=False, error="")]
    steps = reference["model"]["num_inference_steps"]
    for name, group in rows[known].groupby("category", sort=True):
        chosen = group.sample(min(len(group), config.max_images), random_state=config.seed)
        chosen = chosen.sort_index()
        space = LatentSpace.from_dict(reference["categories"][name]["space"])
        parts.append(_of_category(model, chosen, source, space, steps, config, max_pixels))
    return pd.concat(parts, ignore_index=True)


def _of_category(
    model: Any,
    rows: pd.DataFrame,
    source: RecentSource,
    space: LatentSpace,
    steps: int | None,
    config: MonitoringConfig,
    max_pixels: int,
) -> pd.DataFrame:
    """The rows with their features; a score is taken from the table where there is no image."""
    parts = [rows[rows["path"] == ""].assign(known=True, error="")]
    pictured = rows[rows["path"] != ""].drop(columns="score")
    name = str(rows["category"].iloc[0])
    bits = model.bit_depths.get(name, FULL_DEPTH)
    with tqdm(total=len(pictured), desc=f"monitoring {name}", unit="image") as bar:
        for start in range(0, len(pictured), config.batch_size):
            batch = pictured.iloc[start : start + config.batch_size]
            opened, errors = [], []
            for path in batch["path"]:
                try:
                    opened.append(source.read(path, bits, max_pixels))
                    errors.append("")
                except ImageError as error:
                    logger.warning("left out: %s", error)
                    errors.append(str(error))
            batch = batch.assign(known=True, error=errors)
            readable = batch[batch["error"] == ""].reset_index(drop=True)
            parts.append(batch[batch["error"] != ""])
            if opened:
                measured = measure(model, opened, name, space, steps=steps)
                parts.append(pd.concat([readable, measured], axis=1))
            bar.update(len(batch))
    return pd.concat(parts, ignore_index=True)
