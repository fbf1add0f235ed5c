"""Recognises the category of an image, or that it belongs to none, from its latents.

Not in the paper. Features are order statistics of the latents over all positions, so that a local
defect changes them little. Each category is a Gaussian in the space of their principal components.
The answer is the most likely category, or none if the Mahalanobis distance exceeds its limit.
``benchmarks/category_recognition.py`` compares other features.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from scipy.special import softmax
from torch import nn

from decodiff_pipeline.deco.autoencoder import encode
from decodiff_pipeline.deco.geometry import squares
from decodiff_pipeline.deco.preprocess import to_tensor
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from decodiff_pipeline.deco.config import PreprocessConfig

FOLDER = "recogniser"  # of a saved model
QUARTILES = (0.25, 0.5, 0.75)
EPSILON = 0.01  # added before taking a logarithm, in latent units


class Recognition(NamedTuple):
    """The recognised category of an image.

    Attributes:
        category: A category of the model, or None if the image belongs to none.
        certainty: Probability of this answer, 0 to 1.
    """

    category: str | None
    certainty: float


class CategoryRecogniser(ModelMixin, ConfigMixin):
    """A Gaussian and a distance limit for each category.

    Args:
        categories: Number of categories.
        features: Number of columns of `latent_statistics`.
        axes: Number of principal components.
    """

    @register_to_config
    def __init__(self, categories: int, features: int, axes: int) -> None:
        super().__init__()

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape), requires_grad=False)

        self.centre, self.projection = zeros(features), zeros(features, axes)
        self.means, self.precisions = zeros(categories, axes), zeros(categories, axes, axes)
        self.limits = zeros(categories)  # largest distance of an image of the category
        self.temperature, self.steepness = zeros(1), zeros(1)  # see `classify`

    def distances(self, statistics: np.ndarray) -> np.ndarray:
        """Mahalanobis distances of images to the categories.

        Args:
            statistics: float32 (N, features), see `latent_statistics`.

        Returns:
            float64 (N, categories).
        """
        centre, projection, means, precisions = (
            tensor.double().cpu().numpy()
            for tensor in (self.centre, self.projection, self.means, self.precisions)
        )
        offsets = ((statistics - centre) @ projection)[:, None] - means
        return np.sqrt(np.einsum("nkd,kde,nke->nk", offsets, precisions, offsets).clip(0))

    def log_densities(self, distances: np.ndarray) -> np.ndarray:
        """Log densities of the categories up to a constant, for distances (N, categories)."""
        precisions = self.precisions.double().cpu().numpy()
        return (np.linalg.slogdet(precisions)[1] - distances**2) / 2

    def classify(self, statistics: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The most likely category, and whether the image is beyond its limit.

        Args:
            statistics: float32 (N, features), see `latent_statistics`.

        Returns:
            Category numbers, int64 (N,); whether the image belongs to no category, bool (N,); and
            the probability of this answer, float64 (N,).
        """
        distances, limits = self.distances(statistics), self.limits.double().cpu().numpy()
        chances = softmax(float(self.temperature) * self.log_densities(distances), axis=1)
        best = chances.argmax(1)
        rows = np.arange(len(best))
        relative = distances[rows, best] / limits[best]
        none = chance_of_none(relative, float(self.steepness))
        return best, relative > 1, np.where(relative > 1, none, chances[rows, best] * (1 - none))


def recognise(model: Any, images: Sequence[np.ndarray]) -> list[Recognition]:
    """Recognise the categories of images.

    Args:
        model: A `DeCoDiffPipeline` with a recogniser.
        images: uint8 (S, S, 3) each, from `whole_square`.

    Raises:
        ModelError: The model was saved without a recogniser.
    """
    if model.recogniser is None:
        raise ModelError(without_recogniser(model.categories))
    latents, _ = encode(model.vae, to_tensor(images))
    found = model.recogniser.classify(latent_statistics(latents))
    return [
        Recognition(None if none else model.categories[number], float(certainty))
        for number, none, certainty in zip(*found, strict=True)
    ]


def without_recogniser(categories: Sequence[str]) -> str:
    """Error message for a model without a recogniser."""
    return (
        "the model was saved without a recogniser of categories: name one of "
        f"{', '.join(categories)}, or train the model again with scoring.false_refusals"
    )


def whole_square(image: Image.Image, geometry: PreprocessConfig) -> np.ndarray:
    """The whole image stretched to a square, for any ``geometry.fit``: uint8 (S, S, 3).

    S is ``geometry.image_size``. The aspect ratio is lost and does not help recognition.
    """
    side = geometry.image_size
    return squares(image, replace(geometry, resize=side, fit="stretch"))[0]


def latent_statistics(latents: torch.Tensor) -> np.ndarray:
    """Order statistics of each latent channel and of differences between neighbours.

    Args:
        latents: Float (N, C, h, w).

    Returns:
        float32 (N, 8 · C): the median, the logarithm of the interquartile range, and the
        logarithms of the quartiles of the absolute differences across and down.
    """
    values = latents.float().cpu().numpy()
    low, median, high = _quartiles(values)
    columns = [median, np.log(high - low + EPSILON)]
    for axis in (3, 2):
        columns += [np.log(one + EPSILON) for one in _quartiles(np.abs(np.diff(values, axis=axis)))]
    return np.concatenate(columns, axis=1).astype(np.float32)


def chance_of_none(relative: np.ndarray, steepness: float) -> np.ndarray:
    """Probability that an image belongs to no category; 0.5 at the limit.

    Args:
        relative: Distance to the most likely category divided by its limit, float (N,).
        steepness: Slope of the logistic function of ``relative``².
    """
    return 1 / (1 + np.exp((steepness * (1 - relative**2)).clip(-50, 50)))


def _quartiles(values: np.ndarray) -> np.ndarray:
    return np.quantile(values.reshape(*values.shape[:2], -1), QUARTILES, axis=2)
