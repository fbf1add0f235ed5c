"""Fits the recogniser of categories: Gaussians on train images, limits on calibration images."""

from __future__ import annotations

import logging
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import softmax

from decodiff_pipeline.data.read_ahead import read_ahead
from decodiff_pipeline.data.splits import CALIBRATION
from decodiff_pipeline.deco.autoencoder import encode
from decodiff_pipeline.deco.preprocess import to_tensor
from decodiff_pipeline.deco.recognition import (
    CategoryRecogniser,
    chance_of_none,
    latent_statistics,
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
MAX_OWN_WEIGHT = 0.5  # of a category's own covariance; the rest is the mean over categories
RIDGE = 0.05  # shrinkage of a covariance towards a multiple of the identity
TEMPERATURES, STEEPNESS = np.geomspace(0.01, 1, 40), np.geomspace(0.5, 50, 40)
SMALLEST = 1e-6
BATCH = 32


def fit_recognition(
    model: DeCoDiffPipeline, manifest: pd.DataFrame, images: ImageFolder, false_refusals: float
) -> None:
    """Fit a recogniser and add it to a model.

    Without train images of every category, or without calibration images, a warning is logged and
    the model stays without a recogniser.

    Args:
        manifest: The validated manifest. Only good images of train and calibration are used.
        false_refusals: Target share of good images that are assigned to no category, in (0, 1).
    """
    statistics = {
        split: [_statistics(model, _rows(manifest, category, split), images)
                for category in model.categories]
        for split in ("train", CALIBRATION)
    }  # fmt: skip
    if not all(map(len, statistics["train"])) or not any(map(len, statistics[CALIBRATION])):
        logger.warning(
            "categories cannot be recognised: that needs train images of every category, and "
            "calibration images; each request and image must name its category"
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
    """Fit the principal components of all categories and a Gaussian for each category.

    Covariances are shrunk towards their mean; shrinkage is stronger for fewer images.

    Args:
        statistics: For each category `latent_statistics` of its good train images, float32
            (N, features).
    """
    means = [own.mean(0) for own in statistics]
    within = np.concatenate([own - mean for own, mean in zip(statistics, means, strict=True)])
    centre, spread = np.mean(means, axis=0), within.std(0) + SMALLEST
    # Every category has the same weight, whatever its number of images.
    weighted = [(own - centre) / spread / np.sqrt(len(own)) for own in statistics]
    components = np.linalg.svd(np.concatenate(weighted), full_matrices=False)[2][:AXES]
    projection = (components / spread).T
    recogniser = CategoryRecogniser(len(statistics), *projection.shape)
    places = [(own - centre) @ projection for own in statistics]
    covariances = [np.atleast_2d(np.cov(own.T, bias=True)) for own in places]
    common, axes = np.mean(covariances, axis=0), projection.shape[1]
    for number, (own, covariance) in enumerate(zip(places, covariances, strict=True)):
        weight = MAX_OWN_WEIGHT * len(own) / (len(own) + axes)
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
    """Set limits, temperature and steepness on calibration images.

    The limit of a category is its median train distance times a factor. The factor is a conformal
    threshold on the calibration images of all categories together, so that small categories are
    not refused more often. Temperature and steepness maximise the likelihood of these images.

    Returns:
        Upper bound of the expected share of good images that are refused.
    """
    medians = np.array(
        [
            np.median(recogniser.distances(own)[:, number])
            for number, own in enumerate(statistics["train"])
        ]
    ).clip(SMALLEST)
    own = np.repeat(np.arange(len(medians)), [len(one) for one in statistics[CALIBRATION]])
    found = recogniser.distances(np.concatenate(statistics[CALIBRATION]))
    true = np.arange(len(own)), own
    limit = conformal_threshold(found[true] / medians[own], false_refusals)
    recogniser.limits.data[:] = torch.from_numpy(medians * limit["threshold"])
    densities, relative = (
        recogniser.log_densities(found),
        found[true] / medians[own] / limit["threshold"],
    )
    named = [softmax(one * densities, axis=1)[true] for one in TEMPERATURES]
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
    found = []

    def read(path: str) -> np.ndarray:
        return whole_square(images.read(path), model.preprocessing)

    with closing(read_ahead(read, rows["path"])) as squares:
        while batch := list(islice(squares, BATCH)):
            found.append(latent_statistics(encode(model.vae, to_tensor(batch))[0]))
    return np.concatenate(found) if found else np.empty((0, 0), np.float32)
