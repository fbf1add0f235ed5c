"""Which latents a step sees, as a function of (seed, epoch, step) and of nothing else."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from decodiff_pipeline.deco.device import to_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decodiff_pipeline.data.latent_cache import LatentMoments, LatentReader


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


class Batches(ABC):
    """Batches of latents: N images an epoch, each of them once where nothing is balanced.

    Args:
        category_ids: One per image, N in all.
        batch_size: Images per batch; the last batch of an epoch may be smaller.
        seed: Source of order, views and posterior samples.
        sample_posterior: Draw from the posterior where there is one, else take its mean.
        category_balance: b in [0, 1]: a category of n images is drawn in proportion to n^(1-b),
            with replacement where b is not 0.
    """

    in_threads = False  # whether a thread may make them

    def __init__(
        self,
        category_ids: Sequence[int],
        *,
        batch_size: int,
        seed: int,
        sample_posterior: bool = True,
        category_balance: float = 0.0,
    ) -> None:
        self.category_ids = torch.as_tensor(category_ids)
        self.batch_size = batch_size
        self.seed = seed
        self.sample_posterior = sample_posterior
        self.category_balance = category_balance

    def __len__(self) -> int:
        """Batches per epoch."""
        return math.ceil(len(self.category_ids) / self.batch_size)

    def batch(self, number: int) -> Batch:
        """Batch ``number`` of the run, counted from 0 over all epochs."""
        images, moments = self._drawn(number)
        latents = moments.mean
        if self.sample_posterior and moments.std.shape[1]:
            noise = torch.randn(latents.shape, generator=generator("posterior", self.seed, number))
            latents = latents + moments.std * noise.to(latents.device)
        return Batch(latents, self.category_ids[images])

    def identity(self) -> dict[str, Any]:
        """What decides the latents beyond the images and the training's parameters: JSON values."""
        return {}

    @abstractmethod
    def _drawn(self, number: int) -> tuple[torch.Tensor, LatentMoments]:
        """Positions of a batch's images, and the moments of one view of each."""

    def _order(self, epoch: int) -> tuple[torch.Tensor, torch.Generator]:
        """The images of an epoch in their order, and the generator for what is drawn next."""
        random = generator("epoch", self.seed, epoch)
        if not self.category_balance:
            return torch.randperm(len(self.category_ids), generator=random), random
        counts = self.category_ids.bincount().double()
        weights = counts[self.category_ids] ** -self.category_balance
        return weights.multinomial(len(weights), replacement=True, generator=random), random

    def _slice(self, number: int) -> tuple[int, slice]:
        """Epoch of a batch, and its place in the epoch's order."""
        epoch, position = divmod(number, len(self))
        return epoch, slice(position * self.batch_size, (position + 1) * self.batch_size)


class LatentBatches(Batches):
    """Batches over cached latents, a view drawn for every image and epoch.

    Args:
        reader: Latents, ``views`` in a row for each image.
    """

    in_threads = True

    def __init__(
        self,
        reader: LatentReader,
        category_ids: Sequence[int],
        *,
        views: int,
        batch_size: int,
        seed: int,
        sample_posterior: bool = True,
        category_balance: float = 0.0,
    ) -> None:
        super().__init__(
            category_ids,
            batch_size=batch_size,
            seed=seed,
            sample_posterior=sample_posterior,
            category_balance=category_balance,
        )
        self.reader = reader
        self.views = views

    def _drawn(self, number: int) -> tuple[torch.Tensor, LatentMoments]:
        epoch, chosen = self._slice(number)
        images, random = self._order(epoch)
        views = torch.randint(self.views, (len(images),), generator=random)
        rows = images[chosen] * self.views + views[chosen]
        return images[chosen], self.reader.moments(rows.tolist())


class BatchesAhead:
    """Batches on a device, the next one made in a thread while the device computes.

    Args:
        threaded: Whether a thread is wanted, where it may make these batches.
    """

    def __init__(self, batches: Batches, device: torch.device, threaded: bool) -> None:
        self._batches, self._device = batches, device
        self._threaded = threaded and batches.in_threads
        self._pool = ThreadPoolExecutor(1)
        self._next: dict[int, Future[Batch]] = {}

    def batch(self, number: int) -> Batch:
        """As :meth:`Batches.batch`; batches are expected to be asked for in their order."""
        if not self._threaded:
            return self._make(number)
        found = self._next.pop(number, None) or self._pool.submit(self._make, number)
        self._next = {number + 1: self._pool.submit(self._make, number + 1)}
        return found.result()

    def _make(self, number: int) -> Batch:
        return Batch(*(to_device(each, self._device) for each in self._batches.batch(number)))
