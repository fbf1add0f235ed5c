"""Reference statistics: mean discrepancies of good images at each position."""

from __future__ import annotations

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from scipy import ndimage
from torch import nn

SMOOTHING = 1.0  # in latent pixels
# Weight of the category's overall mean, in images, beside the mean of a position.
PRIOR_IMAGES = 10
SMALLEST = 1e-6


class DiscrepancyReference(ModelMixin, ConfigMixin):
    """Mean discrepancies of good images, per category and position.

    Some positions, such as edges or print, are reconstructed worse than others in good images.
    Discrepancies are divided by their mean at the same position. Not in the paper; a reference
    that is not fitted is 1 everywhere.

    Args:
        image_size: Side of the pixel maps.
        latent_size: Side of the latent maps.
    """

    @register_to_config
    def __init__(self, categories: int, image_size: int, latent_size: int) -> None:
        super().__init__()

        def ones(side: int) -> nn.Parameter:
            return nn.Parameter(torch.ones(categories, side, side), requires_grad=False)

        self.pixel, self.latent = ones(image_size), ones(latent_size)

    def fit(self, category: int, pixel: np.ndarray, latent: np.ndarray) -> None:
        """Fit the means of a category to good images.

        Means are smoothed over neighbouring positions and shrunk towards the category's overall
        mean, by a weight of 10 images.

        Args:
            pixel: Pixel discrepancies, float (N, H, W).
            latent: Latent discrepancies, float (N, h, w).
        """
        per_cell = pixel.shape[-1] / latent.shape[-1]
        self.pixel.data[category] = _mean(pixel, SMOOTHING * per_cell)
        self.latent.data[category] = _mean(latent, SMOOTHING)

    def normalise(
        self, category_ids: torch.Tensor, pixel: torch.Tensor, latent: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Divide discrepancies by the mean at their position.

        Args:
            category_ids: int64 (N,).
            pixel: Pixel discrepancies, float (N, H, W).
            latent: Latent discrepancies, float (N, h, w).

        Returns:
            Both discrepancies in the same shapes, about 1 on good images.
        """
        ids = category_ids.to(self.pixel.device)
        return (
            pixel / self.pixel.data[ids].to(pixel.device, torch.float32),
            latent / self.latent.data[ids].to(latent.device, torch.float32),
        )


def _mean(values: np.ndarray, sigma: float) -> torch.Tensor:
    share = len(values) / (len(values) + PRIOR_IMAGES)
    mean = share * ndimage.gaussian_filter(values.mean(0), sigma) + (1 - share) * values.mean()
    return torch.from_numpy(np.maximum(mean, SMALLEST).astype(np.float32))
