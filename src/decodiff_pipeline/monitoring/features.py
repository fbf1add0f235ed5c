"""The numbers of an image that are compared: its score, its place in latent space, its quality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.metrics.image_quality import QUALITY, image_quality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from decodiff_pipeline.deco.regions import Region

SCORE = "score"
LABELS = {
    SCORE: "anomaly score",
    "latent_distance": "distance in latent space",
    "latent_residual": "distance from latent space's axes",
    **QUALITY,
}
GRID = 4  # parts of an image along each side
DIGITS = 6  # significant ones that are kept


@dataclass(frozen=True)
class LatentSpace:
    """Principal axes of the descriptors of good training images, whitened."""

    mean: np.ndarray  # Float (D,)
    axes: np.ndarray  # Float (K, D), each divided by the standard deviation along it
    rest: float  # root mean square of what the axes leave of a training image; above 0

    @classmethod
    def fit(cls, descriptors: np.ndarray, components: int) -> LatentSpace:
        """Fit to descriptors (N, D) of at least two images."""
        from sklearn.decomposition import PCA

        count = min(components, len(descriptors) - 1, descriptors.shape[1])
        pca = PCA(count, svd_solver="full").fit(descriptors)
        deviations = np.sqrt(np.maximum(pca.explained_variance_, np.finfo(np.float32).tiny))
        centred = descriptors - pca.mean_
        left = centred - centred @ pca.components_.T @ pca.components_
        rest = float(np.sqrt(np.mean(left**2)))
        return cls(pca.mean_, pca.components_ / deviations[:, None], rest or 1.0)

    def place(self, descriptors: np.ndarray) -> dict[str, np.ndarray]:
        """Coordinates and distances of images; a training image is about √K and 1 away.

        Args:
            descriptors: Float (N, D).

        Returns:
            ``latent_1`` … ``latent_K``, coordinates; ``latent_distance``, their norm;
            ``latent_residual``, the root mean square of what the axes leave, in units of
            `rest`. Float (N,) each.
        """
        centred = descriptors - self.mean
        coordinates = centred @ self.axes.T
        # The axes are orthogonal, so dividing by the squared length undoes the whitening.
        undone = self.axes / np.sum(self.axes**2, axis=1, keepdims=True)
        left = centred - coordinates @ undone
        return {f"latent_{k + 1}": column for k, column in enumerate(coordinates.T)} | {
            "latent_distance": np.linalg.norm(coordinates, axis=1),
            "latent_residual": np.sqrt(np.mean(left**2, axis=1)) / self.rest,
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "mean": rounded(self.mean),
            "axes": [rounded(axis) for axis in self.axes],
            "rest": rounded([self.rest])[0],
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> LatentSpace:
        """The inverse of `to_dict`."""
        return cls(np.array(content["mean"]), np.array(content["axes"]), content["rest"])


def rounded(values: Sequence[float] | np.ndarray) -> list[float]:
    """Numbers as a JSON file need hold them."""
    return [float(f"{value:.{DIGITS}g}") for value in values]


def stretched(image: Image.Image, side: int, region: Region | None = None) -> np.ndarray:
    """The whole image stretched to a square, uint8 (side, side, 3): a crop's rest may drift too.

    What lies outside of a region may not.
    """
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.deco.preprocess import to_square
    from decodiff_pipeline.deco.regions import fill

    square = to_square(image, PreprocessConfig(resize=side, image_size=side))
    return fill(square, region.at((side, side))) if region and region.filled else square


def describe(model: Any, squares: Sequence[np.ndarray]) -> np.ndarray:
    """Means and standard deviations of the latents' channels over 4 x 4 parts of the image.

    Args:
        model: A `decodiff_pipeline.deco.pipeline.DeCoDiffPipeline`.
        squares: As `stretched` returns them, of the model's input size.

    Returns:
        float64 (N, 2 C 16) for latents of C channels.

    Raises:
        ModelError: A latent is no number.
    """
    from decodiff_pipeline.deco.autoencoder import encode
    from decodiff_pipeline.deco.preprocess import to_tensor

    latents = encode(model.vae, to_tensor(squares))[0].cpu().numpy().astype(np.float64)
    if not np.isfinite(latents).all():
        raise ModelError(
            "the autoencoder gives NaN or infinity for an image; its weights are damaged: train "
            "again"
        )
    return pooled(latents)


def pooled(latents: np.ndarray) -> np.ndarray:
    """Descriptors (N, 2 C 16) of latents (N, C, h, w); sides below 4 have fewer parts."""
    rows, columns = (min(GRID, side) for side in latents.shape[2:])
    parts = [
        part
        for band in np.array_split(latents, rows, axis=2)
        for part in np.array_split(band, columns, axis=3)
    ]
    moments = [
        moment for part in parts for moment in (part.mean(axis=(2, 3)), part.std(axis=(2, 3)))
    ]
    return np.concatenate(moments, axis=1)


def label(feature: str) -> str:
    """What a person calls a feature."""
    return LABELS.get(feature) or feature.replace("latent_", "latent axis ")


@dataclass(frozen=True)
class Photograph:
    """What is kept of an image once it is read."""

    quality: dict[str, float]  # as `image_quality` returns it
    square: np.ndarray  # as `stretched` returns it

    @classmethod
    def of(cls, image: Image.Image, side: int, region: Region | None = None) -> Photograph:
        """Measure an image, or what of it counts, and stretch it to a square of some side."""
        return cls(image_quality(image, region), stretched(image, side, region))


def features(
    space: LatentSpace,
    scores: Sequence[float],
    descriptors: np.ndarray,
    quality: Sequence[dict[str, float]],
) -> pd.DataFrame:
    """The numbers of images of one category.

    Args:
        space: The category's.
        scores: Of the images; NaN where one is not to be had.
        descriptors: As `describe` returns them.
        quality: As `image_quality` returns it.

    Returns:
        A row for each image; columns ``score``, those of `LatentSpace.place` and of
        `image_quality`.
    """
    table = pd.concat([pd.DataFrame(space.place(descriptors)), pd.DataFrame(quality)], axis=1)
    table.insert(0, SCORE, np.asarray(scores, float))
    return table
