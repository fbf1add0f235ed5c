"""How large the discrepancies of normal images are, position by position."""

from __future__ import annotations

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from scipy import ndimage
from torch import nn

SMOOTHING = 1.0  # in latent pixels
# Weight, in images, of the category's overall mean beside that of a position.
PRIOR_IMAGES = 10
SMALLEST = 1e-6


class DiscrepancyReference(ModelMixin, ConfigMixin):
    """Mean discrepancies of good images, per category and position.

    A network reconstructs some places worse than others even where nothing is wrong: edges,
    print, bus bars. Divided by the usual discrepancy of its place, a deviation stands out. Not in
    the paper; a reference that was not fitted is 1 everywhere and changes nothing.

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
        """Take the means of one category from some of its good images.

        A position's mean is smoothed over its neighbours, and drawn towards the category's own
        where there are few images.

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
        """Express discrepancies as multiples of what is usual at their place.

        Args:
            category_ids: int64 (N,).
            pixel: Pixel discrepancies, float (N, H, W).
            latent: Latent discrepancies, float (N, h, w).

        Returns:
            The two, in the same shapes, about 1 on good images.
        """
        ids = category_ids.to(self.pixel.device)
        return (
            pixel / self.pixel.data[ids].to(pixel.device, torch.float32),
            latent / self.latent.data[ids].to(latent.device, torch.float32),
        )


def _mean(values: np.ndarray, sigma: float) -> torch.Tensor:
    own = len(values) / (len(values) + PRIOR_IMAGES)
    mean = own * ndimage.gaussian_filter(values.mean(0), sigma) + (1 - own) * values.mean()
    return torch.from_numpy(np.maximum(mean, SMALLEST).astype(np.float32))
