"""Fits what recognises categories: Gaussians on train images, limits on calibration images."""

from __future__ import annotations

import logging
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import torch

from decodiff_pipeline.data.read_ahead import read_ahead
from decodiff_pipeline.data.splits import CALIBRATION
from decodiff_pipeline.deco.autoencoder import encode
from decodiff_pipeline.deco.preprocess import to_tensor
from decodiff_pipeline.deco.recognition import (
    CategoryRecogniser,
    chance_of_none,
    latent_statistics,
    softmax,
    whole_square,
)
from decodiff_pipeline.metrics.thresholds import conformal_threshold

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline

logger = logging.getLogger(__name__)

AXES = 16
MAX_IMAGES = 256  # of each category and split
OWN = 0.5  # largest weight of a category's own covariance beside that of all
RIDGE = 0.05  # share of a covariance that is spread evenly over the axes
TEMPERATURES, STEEPNESS = np.geomspace(0.01, 1, 40), np.geomspace(0.5, 50, 40)
SMALLEST = 1e-6
BATCH = 32


def fit_recognition(
    model: DeCoDiffPipeline, manifest: pd.DataFrame, images: ImageFolder, false_refusals: float
) -> None:
    """Give a model its recogniser; it gets none where there are no calibration images.

    Args:
        manifest: The validated manifest; only good images of train and calibration are looked at.
        false_refusals: Share of good images that may be refused as of no category, in (0, 1).
    """
    statistics = {
        split: [_statistics(model, _rows(manifest, category, split), images)
                for category in model.categories]
        for split in ("train", CALIBRATION)
    }  # fmt: skip
    if not all(map(len, statistics["train"])) or not any(map(len, statistics[CALIBRATION])):
        logger.warning(
            "there are not train images of every category and calibration images, so the model "
            "cannot recognise categories; each request and image must name its own"
        )
        return
    recogniser = fit_gaussians(statistics["train"])
    refused = set_limits(recogniser, statistics, false_refusals)
    model.register_modules(recogniser=recogniser.to(model.vae.device))
    logger.info(
        "recognises the %d categories; at most %.3g of good images are expected to be refused",
        *(len(model.categories), refused),
    )


def fit_gaussians(statistics: Sequence[np.ndarray]) -> CategoryRecogniser:
    """Principal components of all categories, and a Gaussian of each.

    Covariances are drawn towards their mean, the more the fewer images a category has.

    Args:
        statistics: `latent_statistics` of each category's good train images.
    """
    means = [own.mean(0) for own in statistics]
    within = np.concatenate([own - mean for own, mean in zip(statistics, means, strict=True)])
    centre, spread = np.mean(means, axis=0), within.std(0) + SMALLEST
    # Every category counts the same, however many images it has.
    weighted = [(own - centre) / spread / np.sqrt(len(own)) for own in statistics]
    components = np.linalg.svd(np.concatenate(weighted), full_matrices=False)[2][:AXES]
    projection = (components / spread).T
    recogniser = CategoryRecogniser(len(statistics), *projection.shape)
    places = [(own - centre) @ projection for own in statistics]
    covariances = [np.atleast_2d(np.cov(own.T, bias=True)) for own in places]
    common, axes = np.mean(covariances, axis=0), projection.shape[1]
    for number, (own, covariance) in enumerate(zip(places, covariances, strict=True)):
        weight = OWN * len(own) / (len(own) + axes)
        mixed = weight * covariance + (1 - weight) * common
        even = np.eye(axes) * (np.trace(mixed) / axes + SMALLEST)
        precision = np.linalg.inv((1 - RIDGE) * mixed + RIDGE * even)
        recogniser.means.data[number] = torch.from_numpy(own.mean(0))
        recogniser.precisions.data[number] = torch.from_numpy(precision)
    recogniser.centre.data[:] = torch.from_numpy(centre)
    recogniser.projection.data[:] = torch.from_numpy(projection)
    return recogniser


def set_limits(
    recogniser: CategoryRecogniser,
    statistics: dict[str, list[np.ndarray]],
    false_refusals: float,
) -> float:
    """Set the limits by calibration images: of each category a multiple of its median distance.

    The multiple is one for all categories, so that those of few images are not refused more
    often. Temperature and steepness are those under which the calibration images are most likely.

    Returns:
        The share of good images refused that is expected at most.
    """
    usual = np.array(
        [
            np.median(recogniser.distances(own)[:, number])
            for number, own in enumerate(statistics["train"])
        ]
    ).clip(SMALLEST)
    own = np.repeat(np.arange(len(usual)), [len(one) for one in statistics[CALIBRATION]])
    found = recogniser.distances(np.concatenate(statistics[CALIBRATION]))
    true = np.arange(len(own)), own
    limit = conformal_threshold(found[true] / usual[own], false_refusals)
    recogniser.limits.data[:] = torch.from_numpy(usual * limit["threshold"])
    densities, relative = (
        recogniser.log_densities(found),
        found[true] / usual[own] / limit["threshold"],
    )
    named = [softmax(one * densities)[true] for one in TEMPERATURES]
    accepted = [1 - chance_of_none(relative, one) for one in STEEPNESS]
    for tensor, values, chances in (
        (recogniser.temperature, TEMPERATURES, named),
        (recogniser.steepness, STEEPNESS, accepted),
    ):
        best = np.argmax([np.log(one + SMALLEST).sum() for one in chances])
        tensor.data[:] = float(values[best])
    return float(limit["promised_false_positive_rate"])


def _rows(manifest: pd.DataFrame, category: str, split: str) -> pd.DataFrame:
    rows = manifest[(manifest["category"] == category) & (manifest["split"] == split)]
    rows = rows[rows["label"] == "good"]
    return rows.iloc[np.linspace(0, len(rows) - 1, min(len(rows), MAX_IMAGES)).round().astype(int)]


def _statistics(model: DeCoDiffPipeline, rows: pd.DataFrame, images: ImageFolder) -> np.ndarray:
    found: list[np.ndarray] = []
    waiting: list[np.ndarray] = []

    def described() -> np.ndarray:
        return latent_statistics(encode(model.vae, to_tensor(waiting))[0])

    def read(path: str) -> np.ndarray:
        return whole_square(images.read(path), model.preprocessing)

    with closing(read_ahead(read, rows["path"])) as squares:
        for square in squares:
            waiting.append(square)
            if len(waiting) == BATCH:
                found.append(described())
                waiting.clear()
    if waiting:
        found.append(described())
    return np.concatenate(found) if found else np.empty((0, 0), np.float32)
