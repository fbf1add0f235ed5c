"""Which latents a step sees, as a function of (seed, epoch, step) and of nothing else."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decodiff_pipeline.data.latent_cache import LatentReader


def generator(*identity: object) -> torch.Generator:
    """A CPU generator whose stream is decided by the given values alone."""
    digest = hashlib.sha256(repr(identity).encode()).digest()
    # 63 bits: torch refuses seeds beyond the range of a signed 64-bit number.
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class Batch(NamedTuple):
    """Some latents with their categories.

    Attributes:
        latents: z, float32 (B, C, h, w).
        category_ids: int64 (B,).
    """

    latents: torch.Tensor
    category_ids: torch.Tensor


class LatentBatches:
    """Batches over cached latents, one view of every image an epoch.

    Args:
        reader: Latents, ``views`` in a row for each image.
        category_ids: One per image.
        views: Views per image.
        batch_size: Images per batch; the last batch of an epoch may be smaller.
        seed: Source of order, views and posterior samples.
        sample_posterior: Draw from the posterior where there is one, else take its mean.
    """

    def __init__(
        self,
        reader: LatentReader,
        category_ids: Sequence[int],
        *,
        views: int,
        batch_size: int,
        seed: int,
        sample_posterior: bool = True,
    ) -> None:
        self.reader = reader
        self.category_ids = torch.as_tensor(category_ids)
        self.views = views
        self.batch_size = batch_size
        self.seed = seed
        self.sample_posterior = sample_posterior

    def __len__(self) -> int:
        """Batches per epoch."""
        return math.ceil(len(self.category_ids) / self.batch_size)

    def batch(self, number: int) -> Batch:
        """Batch ``number`` of the run, counted from 0 over all epochs."""
        epoch, position = divmod(number, len(self))
        order = generator("epoch", self.seed, epoch)
        images = torch.randperm(len(self.category_ids), generator=order)
        views = torch.randint(self.views, (len(images),), generator=order)
        chosen = slice(position * self.batch_size, (position + 1) * self.batch_size)
        rows = images[chosen] * self.views + views[chosen]
        moments = self.reader.moments(rows.tolist())
        latents = moments.mean
        if self.sample_posterior and moments.std.shape[1]:
            noise = torch.randn(latents.shape, generator=generator("posterior", self.seed, number))
            latents = latents + moments.std * noise
        return Batch(latents, self.category_ids[images[chosen]])
