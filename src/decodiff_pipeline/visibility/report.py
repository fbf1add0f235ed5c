"""The visibility check of all categories, as JSON values, log messages and an HTML page."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from decodiff_pipeline.deco.device import keep_freed_memory, resolve_device
from decodiff_pipeline.reporting.page import render_page
from decodiff_pipeline.reporting.pictures import data_uri
from decodiff_pipeline.visibility.advice import answer, warnings
from decodiff_pipeline.visibility.fidelity import timings
from decodiff_pipeline.visibility.measure import measure_category

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.autoencoder import Autoencoder
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.training.config import TrainingConfig
    from decodiff_pipeline.training.scoring import ScoringConfig
    from decodiff_pipeline.visibility.config import VisibilityConfig
    from decodiff_pipeline.visibility.measure import Picture, Visibility

logger = logging.getLogger(__name__)

AMPLIFIED = 4  # factor of the difference in the pictures
LEAST_SIDE = 192  # smallest side of a picture in pixels; smaller squares are enlarged
PICTURE_BYTES = 40_000


def report_visibility(
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    autoencoder: Autoencoder,
    training: TrainingConfig,
    scoring: ScoringConfig,
    config: VisibilityConfig,
    *,
    name: str,
    page: str,
) -> tuple[dict[str, Any], str]:
    """Run :func:`check_visibility` and log its messages; returns its report, and as an HTML page.

    Args:
        page: Path of the page, for the warnings.
    """
    report, measured = check_visibility(
        manifest, images, geometry=geometry, autoencoder=autoencoder, name=name, config=config,
        preset=training.preset, reverse_steps=scoring.num_inference_steps,
    )  # fmt: skip
    for sentence in report["answers"]:
        logger.info("visibility: %s", sentence)
    for sentence in report["warnings"]:
        logger.warning("%s. See %s.", sentence, page)
    return report, render(report, measured, config)


def check_visibility(
    manifest: pd.DataFrame,
    images: ImageFolder,
    *,
    geometry: PreprocessConfig,
    autoencoder: Autoencoder,
    name: str,
    config: VisibilityConfig,
    preset: str,
    reverse_steps: int,
) -> tuple[dict[str, Any], dict[str, Visibility]]:
    """Measure every category, and log the time per square.

    Args:
        autoencoder: In eval mode; it is moved to the configured device.
        name: Name of the autoencoder in the report.
        preset, reverse_steps: Size of the network and reverse steps, for the time per square.

    Returns:
        The report: ``settings`` (pairs of texts), ``visibility``, ``defects``, ``masks`` (by
        category), ``answers`` and ``warnings`` (sentences), without times, so that it is
        reproducible; and the :class:`~.measure.Visibility` of each category, with pictures.
    """
    keep_freed_memory()
    device = resolve_device()
    model = autoencoder.to(device, memory_format=torch.channels_last)
    logger.info(
        "visibility: on this machine a square takes %(image).3g s (encoding %(encode).2g, decoding "
        "%(decode).2g, one forward pass of the network %(network).2g)",
        timings(model, geometry.image_size, preset, reverse_steps),
    )
    measured = {
        str(category): measure_category(rows, images, geometry, model, config)
        for category, rows in manifest.groupby("category", sort=True)
    }
    settings = {
        "autoencoder": name,
        "squares": f"{geometry.image_size}x{geometry.image_size} pixels",
        "fit": f"{geometry.fit} of {geometry.resize}" if geometry.crops else geometry.fit,
        "network": f"{preset}, {reverse_steps} steps",
    }
    categories = measured.items()
    report = {
        "settings": [list(pair) for pair in settings.items()],
        "visibility": {name: category.figures for name, category in categories},
        "defects": {name: category.defects for name, category in categories},
        "masks": {name: category.masks for name, category in categories if category.masks},
        "answers": [answer(name, category, geometry, config) for name, category in categories],
        "warnings": [
            sentence
            for name, category in categories
            for sentence in warnings(name, category, config)
        ],
    }
    return report, measured


def render(
    report: Mapping[str, Any], measured: Mapping[str, Visibility], config: VisibilityConfig
) -> str:
    """Render the results of :func:`check_visibility` as a self-contained HTML page."""
    return render_page(
        "visibility.html.j2",
        **report,
        limits=config,
        amplified=AMPLIFIED,
        tables={name: _table(category.defects) for name, category in measured.items()},
        pictures={
            name: [_row(picture) for picture in category.pictures]
            for name, category in measured.items()
        },
    )


def _table(defects: list[dict[str, Any]]) -> dict[str, Any]:
    """Kinds of defects (rows) by sizes (columns)."""
    kinds = list(dict.fromkeys((row["kind"], row["contrast"], row["colour"]) for row in defects))
    sizes = {row["cells"]: row for row in defects}
    cells = {(row["kind"], row["cells"]): row for row in defects}
    return {"kinds": kinds, "sizes": [sizes[key] for key in sorted(sizes)], "cells": cells}


def _row(picture: Picture) -> dict[str, str]:
    difference = AMPLIFIED * abs(picture.after - picture.before)
    parts = {"before": picture.before, "after": picture.after, "difference": difference}
    return {"caption": picture.caption} | {name: _uri(part) for name, part in parts.items()}


def _uri(pixels: np.ndarray) -> str:
    image = Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))
    times = max(1, round(LEAST_SIDE / image.width))
    enlarged = image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST)
    return data_uri(enlarged, PICTURE_BYTES)
