"""What the discrepancies of normal images look like, position by position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from scipy import ndimage
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

SMOOTHING = 1.0  # in latent pixels
# Weight, in images, of the category's overall statistics beside those of a position.
PRIOR_IMAGES = 10
SMALLEST = 1e-6


class DiscrepancyReference(ModelMixin, ConfigMixin):
    """Mean and standard deviation of the discrepancies of good images, per category and position.

    A network reconstructs some places worse than others even where nothing is wrong: edges,
    print, bus bars. Measured against the usual discrepancy of its place, a deviation stands out.
    Not in the paper; with all means 0 and all deviations 1 it changes nothing.

    Args:
        categories: How many.
        image_size: Side of the pixel maps.
        latent_size: Side of the latent maps.
    """

    @register_to_config
    def __init__(self, categories: int, image_size: int, latent_size: int) -> None:
        super().__init__()

        def maps(side: int, value: float) -> nn.Parameter:
            return nn.Parameter(torch.full((categories, side, side), value), requires_grad=False)

        self.pixel_mean, self.pixel_std = maps(image_size, 0.0), maps(image_size, 1.0)
        self.latent_mean, self.latent_std = maps(latent_size, 0.0), maps(latent_size, 1.0)

    def fit(self, category: int, pixel: np.ndarray, latent: np.ndarray) -> None:
        """Take the statistics of one category from some of its good images.

        A position's statistics are smoothed over its neighbours, and drawn towards the category's
        own where there are few images.

        Args:
            category: Its number.
            pixel: Pixel discrepancies, float (N, H, W).
            latent: Latent discrepancies, float (N, h, w).
        """
        per_cell = pixel.shape[-1] / latent.shape[-1]
        for name, values, sigma in (
            ("pixel", pixel, SMOOTHING * per_cell),
            ("latent", latent, SMOOTHING),
        ):
            mean, std = _statistics(values, sigma)
            getattr(self, f"{name}_mean").data[category] = torch.from_numpy(mean)
            getattr(self, f"{name}_std").data[category] = torch.from_numpy(std)

    def normalise(
        self, category_ids: Sequence[int], pixel: np.ndarray, latent: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Express discrepancies in standard deviations above the mean of their place.

        Args:
            category_ids: One per image.
            pixel: Pixel discrepancies, float (N, H, W).
            latent: Latent discrepancies, float (N, h, w).
        """
        ids = list(category_ids)
        return (
            (pixel - self.pixel_mean[ids].cpu().numpy()) / self.pixel_std[ids].cpu().numpy(),
            (latent - self.latent_mean[ids].cpu().numpy()) / self.latent_std[ids].cpu().numpy(),
        )


def _statistics(values: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    own = len(values) / (len(values) + PRIOR_IMAGES)
    mean = ndimage.gaussian_filter(values.mean(0), sigma)
    mean = own * mean + (1 - own) * values.mean()
    variance = ndimage.gaussian_filter(np.square(values - mean).mean(0), sigma)
    variance = own * variance + (1 - own) * values.var()
    std = np.sqrt(np.maximum(variance, SMALLEST**2))
    return mean.astype(np.float32), std.astype(np.float32)
