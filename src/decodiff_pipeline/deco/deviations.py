"""Removes the deviations that the network makes in good images, too."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn


class UsualDeviations(ModelMixin, ConfigMixin):
    """Mean and principal components of the deviations ẑ_0 - z of good images, for each category.

    Not in the paper. The network changes good images too: it blurs print, moves edges and evens
    out light. These changes recur from image to image and span a subspace, which is projected out
    of every deviation. A defect lies mostly outside the subspace. The deviations of a category
    that was not fitted do not change.

    Args:
        categories: Number of categories.
        components: Largest number of principal components of a category.
        channels: Channels of the latents.
        latent_size: Side of the latents.
    """

    @register_to_config
    def __init__(self, categories: int, components: int, channels: int, latent_size: int) -> None:
        super().__init__()

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape), requires_grad=False)

        features = channels * latent_size**2
        self.mean = zeros(categories, features)
        self.directions = zeros(categories, components, features)

    def fit(self, category: int, deviations: torch.Tensor) -> None:
        """Fit mean and components of one category; N images give at most N - 1 components.

        Args:
            deviations: ẑ_0 - z in the network's units, float (N, C, h, w), N ≥ 1.
        """
        flat = deviations.flatten(1).double().cpu()
        mean = flat.mean(0)
        kept = min(self.directions.shape[1], len(flat) - 1)
        axes = torch.linalg.svd(flat - mean, full_matrices=False).Vh[:kept]
        self.mean.data[category] = mean.to(self.mean)
        self.directions.data[category, :kept] = axes.to(self.directions)

    def removed(self, category_ids: torch.Tensor, deviations: torch.Tensor) -> torch.Tensor:
        """Subtract the mean and the projection on the components from deviations.

        Args:
            category_ids: int64 (N,).
            deviations: As in :meth:`fit`.

        Returns:
            The same shape and type.
        """
        ids = category_ids.to(self.mean.device)
        rest = deviations.flatten(1) - self.mean[ids]
        directions = self.directions[ids]
        weights = torch.einsum("nf,nkf->nk", rest, directions)
        return (rest - torch.einsum("nk,nkf->nf", weights, directions)).reshape(deviations.shape)
