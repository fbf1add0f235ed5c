"""Which category an image is of, or that it is of none: by statistics of its latents.

Not in the paper. An image is described by order statistics of its latents, which say nothing of
places: a defect changes few of them. In the space of their principal components each category is
a Gaussian: the likeliest is the category, unless the image lies too far from it. What else was
tried: benchmarks/category_recognition.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
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
SMALLEST = 0.01  # of the spreads whose logarithm is taken, in latent units


class Recognition(NamedTuple):
    """The category of an image.

    Attributes:
        category: One that the model knows; ``None`` where the image is of none.
        certainty: Probability of that within 0…1, beside the other categories and none.
    """

    category: str | None
    certainty: float


class CategoryRecogniser(ModelMixin, ConfigMixin):
    """Gaussians of the categories, and how far from one an image may lie.

    Args:
        categories: Their number.
        features: Columns of `latent_statistics`.
        axes: Principal components that are kept.
    """

    @register_to_config
    def __init__(self, categories: int, features: int, axes: int) -> None:
        super().__init__()

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape), requires_grad=False)

        self.centre, self.projection = zeros(features), zeros(features, axes)
        self.means, self.precisions = zeros(categories, axes), zeros(categories, axes, axes)
        self.limits = zeros(categories)  # distances beyond which an image is of no category
        self.temperature, self.steepness = zeros(1), zeros(1)  # of the two probabilities

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
        """Of the categories, but for a constant, at distances float (N, categories)."""
        precisions = self.precisions.double().cpu().numpy()
        return (np.linalg.slogdet(precisions)[1] - distances**2) / 2

    def classify(self, statistics: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The most likely category, and whether the image is of none as it is beyond its limit.

        Args:
            statistics: float32 (N, features), see `latent_statistics`.

        Returns:
            Category numbers, int64 (N,); whether the image is of none, bool (N,); and the
            probability of what is said, float64 (N,).
        """
        distances, limits = self.distances(statistics), self.limits.double().cpu().numpy()
        chances = softmax(float(self.temperature) * self.log_densities(distances))
        best = chances.argmax(1)
        rows = np.arange(len(best))
        relative = distances[rows, best] / limits[best]
        none = chance_of_none(relative, float(self.steepness))
        return best, relative > 1, np.where(relative > 1, none, chances[rows, best] * (1 - none))


class RecognisingModel(Protocol):
    """A `DeCoDiffPipeline`, as far as recognition needs it."""

    recogniser: CategoryRecogniser | None
    vae: Any

    @property
    def categories(self) -> tuple[str, ...]:
        """Names by number."""


def recognise(model: RecognisingModel, images: Sequence[np.ndarray]) -> list[Recognition]:
    """The categories of images.

    Args:
        model: With a recogniser.
        images: As `whole_square` returns them.

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
    """What is wrong with a model that cannot recognise."""
    return (
        "the model was saved without what recognises categories: name one of "
        f"{', '.join(categories)}, or train the model again with scoring.false_refusals"
    )


def whole_square(image: Image.Image, geometry: PreprocessConfig) -> np.ndarray:
    """All of an image in one square, whatever ``geometry.fit``: uint8 (image_size, image_size, 3).

    Its aspect ratio is lost, and with it what tells a line scan from a photograph.
    """
    side = geometry.image_size
    return squares(image, replace(geometry, resize=side, fit="stretch"))[0]


def latent_statistics(latents: torch.Tensor) -> np.ndarray:
    """Order statistics of each channel: median, spread, and differences between neighbours.

    Args:
        latents: Float (N, C, h, w).

    Returns:
        float32 (N, 8 · C): the median, the logarithm of the interquartile range, and the
        logarithms of the quartiles of the absolute differences across and down.
    """
    values = latents.float().cpu().numpy()
    low, median, high = _quartiles(values)
    columns = [median, np.log(high - low + SMALLEST)]
    for axis in (3, 2):
        columns += [
            np.log(one + SMALLEST) for one in _quartiles(np.abs(np.diff(values, axis=axis)))
        ]
    return np.concatenate(columns, axis=1).astype(np.float32)


def chance_of_none(relative: np.ndarray, steepness: float) -> np.ndarray:
    """Probability that an image is of no category: one half at the limit.

    Args:
        relative: Distance to the category in units of its limit, float (N,).
        steepness: How fast it falls towards the category.
    """
    return 1 / (1 + np.exp((steepness * (1 - relative**2)).clip(-50, 50)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, K) of logits (N, K)."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _quartiles(values: np.ndarray) -> np.ndarray:
    return np.quantile(values.reshape(*values.shape[:2], -1), QUARTILES, axis=2)
