"""The monitored features of an image: anomaly score, latent coordinates and image quality."""

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
DIGITS = 6  # significant digits in the JSON file


@dataclass(frozen=True)
class LatentSpace:
    """Whitened principal axes of the descriptors of good training images."""

    mean: np.ndarray  # Float (D,)
    axes: np.ndarray  # Float (K, D), each divided by the standard deviation along it
    rest: float  # root mean square of the training images' PCA residuals; above 0

    @classmethod
    def fit(cls, descriptors: np.ndarray, components: int) -> LatentSpace:
        """Fit a PCA to descriptors, float (N, D) with N ≥ 2."""
        from sklearn.decomposition import PCA

        count = min(components, len(descriptors) - 1, descriptors.shape[1])
        pca = PCA(count, svd_solver="full").fit(descriptors)
        deviations = np.sqrt(np.maximum(pca.explained_variance_, np.finfo(np.float32).tiny))
        centred = descriptors - pca.mean_
        residuals = centred - centred @ pca.components_.T @ pca.components_
        rest = float(np.sqrt(np.mean(residuals**2)))
        return cls(pca.mean_, pca.components_ / deviations[:, None], rest or 1.0)

    def place(self, descriptors: np.ndarray) -> dict[str, np.ndarray]:
        """Project images onto the axes.

        Args:
            descriptors: Float (N, D).

        Returns:
            Float (N,) each: ``latent_1`` … ``latent_K``, the whitened coordinates;
            ``latent_distance``, their norm (about √K for training images); ``latent_residual``,
            the root mean square of the PCA residual in units of `rest` (about 1).
        """
        centred = descriptors - self.mean
        coordinates = centred @ self.axes.T
        # The axes are orthogonal, so dividing by the squared length inverts the whitening.
        inverse = self.axes / np.sum(self.axes**2, axis=1, keepdims=True)
        residuals = centred - coordinates @ inverse
        return {f"latent_{k + 1}": column for k, column in enumerate(coordinates.T)} | {
            "latent_distance": np.linalg.norm(coordinates, axis=1),
            "latent_residual": np.sqrt(np.mean(residuals**2, axis=1)) / self.rest,
        }

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
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
    """Round to `DIGITS` significant digits."""
    return [float(f"{value:.{DIGITS}g}") for value in values]


def stretched(image: Image.Image, side: int, region: Region | None = None) -> np.ndarray:
    """The whole image as a square, uint8 (side, side, 3), because drift may occur outside a crop.

    The area outside of a region is filled if the region is configured so.
    """
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.deco.preprocess import to_square
    from decodiff_pipeline.deco.regions import fill

    square = to_square(image, PreprocessConfig(resize=side, image_size=side))
    return fill(square, region.at((side, side))) if region and region.filled else square


def describe(model: Any, squares: Sequence[np.ndarray]) -> np.ndarray:
    """Means and standard deviations of the latent channels in a 4 x 4 grid.

    Args:
        model: A `decodiff_pipeline.deco.pipeline.DeCoDiffPipeline`.
        squares: Images of the model's input size; see `stretched`.

    Returns:
        float64 (N, 2 C 16) for latents of C channels.

    Raises:
        ModelError: A latent is NaN or infinite.
    """
    from decodiff_pipeline.deco.autoencoder import encode
    from decodiff_pipeline.deco.preprocess import to_tensor

    latents = encode(model.vae, to_tensor(squares))[0].cpu().numpy().astype(np.float64)
    if not np.isfinite(latents).all():
        raise ModelError(
            "the autoencoder returns NaN or infinity for an image; its weights are damaged: train "
            "again"
        )
    return pooled(latents)


def pooled(latents: np.ndarray) -> np.ndarray:
    """Descriptors (N, 2 C 16) of latents (N, C, h, w); fewer parts if a side is below 4."""
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
    """The display name of a feature."""
    return LABELS.get(feature) or feature.replace("latent_", "latent axis ")


@dataclass(frozen=True)
class Photograph:
    """The measurements of an image that remain in memory."""

    quality: dict[str, float]  # see `image_quality`
    square: np.ndarray  # see `stretched`

    @classmethod
    def of(cls, image: Image.Image, side: int, region: Region | None = None) -> Photograph:
        """Measure an image, or its region, and stretch it to a square."""
        return cls(image_quality(image, region), stretched(image, side, region))


def features(
    space: LatentSpace,
    scores: Sequence[float],
    descriptors: np.ndarray,
    quality: Sequence[dict[str, float]],
) -> pd.DataFrame:
    """The features of images of one category.

    Args:
        space: Latent space of the category.
        scores: Anomaly scores; NaN if unknown.
        descriptors: See `describe`.
        quality: See `image_quality`.

    Returns:
        A row for each image with the columns ``score`` and those of `LatentSpace.place` and
        `image_quality`.
    """
    table = pd.concat([pd.DataFrame(space.place(descriptors)), pd.DataFrame(quality)], axis=1)
    table.insert(0, SCORE, np.asarray(scores, float))
    return table
