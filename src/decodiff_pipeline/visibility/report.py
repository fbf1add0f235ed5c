"""The visibility check as plain data, as log messages, and as one self-contained HTML page."""

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
    from decodiff_pipeline.visibility.config import VisibilityConfig
    from decodiff_pipeline.visibility.measure import Picture, Visibility

logger = logging.getLogger(__name__)

AMPLIFIED = 4  # times the difference in the pictures
LEAST_SIDE = 192  # pixels of a picture in the page; smaller squares are enlarged
PICTURE_BYTES = 40_000


def report_visibility(
    manifest: pd.DataFrame, images: ImageFolder, *, page: str, **settings: Any
) -> tuple[dict[str, Any], str]:
    """Measures every category and logs what cannot be seen.

    Args:
        page: Where the warnings point to.
        settings: The keyword arguments of :func:`check_visibility`.

    Returns:
        The report as plain data, and as one HTML page.
    """
    report, found = check_visibility(manifest, images, **settings)
    for sentence in report["answers"]:
        logger.info("visibility: %s", sentence)
    for sentence in report["warnings"]:
        logger.warning("%s. See %s.", sentence, page)
    return report, render(report, found, settings["config"])


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
    """Measures every category and says what cannot be seen.

    Args:
        autoencoder: In eval mode; it is moved to the GPU where there is one.
        name: Name of the autoencoder in the report.
        preset: Size of the network, for the time that an image takes, as its reverse steps are.

    Returns:
        ``settings`` (pairs of texts), ``visibility`` (category → figures), ``defects`` (category →
        rows), ``masks`` (category → sizes, where there are masks), ``answers`` (a sentence a
        category) and ``warnings``; and the :class:`~.measure.Visibility` of each category, with
        pictures. Times are logged alone: DVC is to see the same report from the same inputs.
    """
    keep_freed_memory()
    device = resolve_device()
    model = autoencoder.to(device, memory_format=torch.channels_last)
    logger.info(
        "visibility: on this machine a square takes %(image).3g s (encoding %(encode).2g, decoding "
        "%(decode).2g, one of its passes of the network %(network).2g)",
        timings(model, geometry.image_size, preset, reverse_steps),
    )
    found = {
        str(category): measure_category(rows, images, geometry, model, config)
        for category, rows in manifest.groupby("category", sort=True)
    }
    fit = f"{geometry.fit} of {geometry.resize}" if geometry.crops else geometry.fit
    settings = {
        "autoencoder": name,
        "squares": f"{geometry.image_size}x{geometry.image_size} pixels",
        "fit": fit,
        "network": f"{preset}, {reverse_steps} steps",
    }
    report = {
        "settings": [list(pair) for pair in settings.items()],
        "visibility": {name: one.figures for name, one in found.items()},
        "defects": {name: one.defects for name, one in found.items()},
        "masks": {name: one.masks for name, one in found.items() if one.masks},
        "answers": [answer(name, one, geometry, config) for name, one in found.items()],
        "warnings": [
            sentence for name, one in found.items() for sentence in warnings(name, one, config)
        ],
    }
    return report, found


def render(
    report: Mapping[str, Any], found: Mapping[str, Visibility], config: VisibilityConfig
) -> str:
    """Renders what :func:`check_visibility` returns as HTML, values escaped, pictures embedded."""
    return render_page(
        "visibility.html.j2",
        **report,
        limits=config,
        amplified=AMPLIFIED,
        tables={name: _table(one) for name, one in found.items()},
        pictures={name: [_row(p) for p in one.pictures] for name, one in found.items()},
    )


def _table(found: Visibility) -> dict[str, Any]:
    """Kinds of defects against sizes."""
    kinds = list(
        dict.fromkeys((row["kind"], row["contrast"], row["colour"]) for row in found.defects)
    )
    sizes = {row["cells"]: row for row in found.defects}
    cells = {(row["kind"], row["cells"]): row for row in found.defects}
    return {"kinds": kinds, "sizes": [sizes[key] for key in sorted(sizes)], "cells": cells}


def _row(picture: Picture) -> dict[str, str]:
    """Caption and data URIs of the image, its reconstruction and their difference."""
    difference = AMPLIFIED * abs(picture.after - picture.before)
    parts = {"before": picture.before, "after": picture.after, "difference": difference}
    return {"caption": picture.caption} | {name: _uri(part) for name, part in parts.items()}


def _uri(pixels: np.ndarray) -> str:
    image = Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))
    times = max(1, round(LEAST_SIDE / image.width))
    enlarged = image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST)
    return data_uri(enlarged, PICTURE_BYTES)
