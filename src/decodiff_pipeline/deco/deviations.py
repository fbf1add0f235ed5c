"""The usual deviations of good images, which say nothing of a defect."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn


class UsualDeviations(ModelMixin, ConfigMixin):
    """Mean and principal components of good images' deviations ẑ_0 - z, for each category.

    The network changes good images too: it blurs print, moves edges, evens out light. Such changes
    repeat from image to image. What lies in their span is removed from a deviation; a defect lies
    mostly outside it. A category that was not fitted keeps its deviations. Not in the paper.

    Args:
        categories: Their number.
        components: Principal components that are kept of each, at most.
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
        """Take mean and components of one category from some of its good images.

        Of N images at most N - 1 components are kept.

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
        """Deviations less their usual part.

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
