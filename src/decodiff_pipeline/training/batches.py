"""Batches of latents. Each is a function of the seed and its number alone, for exact resuming."""

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
    """A CPU generator, seeded by a hash of the given values."""
    digest = hashlib.sha256(repr(identity).encode()).digest()
    # 63 bits: torch's seeds are signed 64-bit integers.
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class Batch(NamedTuple):
    """Latents and their categories.

    Attributes:
        latents: z, float32 (B, C, h, w).
        category_ids: int64 (B,).
    """

    latents: torch.Tensor
    category_ids: torch.Tensor


class Batches(ABC):
    """Batches of latents, N images an epoch; each image once if ``category_balance`` is 0.

    Args:
        category_ids: One per image, N in all.
        batch_size: Images per batch; the last batch of an epoch may be smaller.
        seed: Seed of the order, the views and the posterior samples.
        sample_posterior: Draw from the posterior if there is one, else take its mean.
        category_balance: b in [0, 1]: a category of n images is drawn in proportion to n^(1-b),
            with replacement if b is not 0.
    """

    in_threads = False  # whether a batch can be made in a thread

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
        images, moments = self._encoded(number)
        latents = moments.mean
        if self.sample_posterior and moments.std.shape[1]:
            noise = torch.randn(latents.shape, generator=generator("posterior", self.seed, number))
            latents = latents + moments.std * noise.to(latents.device)
        return Batch(latents, self.category_ids[images])

    def identity(self) -> dict[str, Any]:
        """What else determines the latents, beside images and parameters, as JSON values."""
        return {}

    @abstractmethod
    def _encoded(self, number: int) -> tuple[torch.Tensor, LatentMoments]:
        """Indices of a batch's images, int64 (B,), and the moments of one view of each."""

    def _order(self, epoch: int) -> tuple[torch.Tensor, torch.Generator]:
        """Indices of an epoch's images, int64 (N,), and the generator for further draws."""
        random = generator("epoch", self.seed, epoch)
        if not self.category_balance:
            return torch.randperm(len(self.category_ids), generator=random), random
        counts = self.category_ids.bincount().double()
        weights = counts[self.category_ids] ** -self.category_balance
        return weights.multinomial(len(weights), replacement=True, generator=random), random

    def _slice(self, number: int) -> tuple[int, slice]:
        """Epoch of a batch, and its slice of the epoch's order."""
        epoch, position = divmod(number, len(self))
        return epoch, slice(position * self.batch_size, (position + 1) * self.batch_size)


class LatentBatches(Batches):
    """Batches of cached latents; one of the views of each image is drawn in each epoch.

    Args:
        reader: Latents, ``views`` consecutive ones for each image.
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

    def _encoded(self, number: int) -> tuple[torch.Tensor, LatentMoments]:
        epoch, part = self._slice(number)
        images, random = self._order(epoch)
        views = torch.randint(self.views, (len(images),), generator=random)
        rows = images[part] * self.views + views[part]
        return images[part], self.reader.moments(rows.tolist())


class BatchesAhead:
    """Batches on a device; a thread makes the next one while the device computes.

    Args:
        threaded: Whether to use a thread, if the batches can be made in one.
    """

    def __init__(self, batches: Batches, device: torch.device, threaded: bool) -> None:
        self._batches, self._device = batches, device
        self._threaded = threaded and batches.in_threads
        self._pool = ThreadPoolExecutor(1)
        self._next: dict[int, Future[Batch]] = {}

    def batch(self, number: int) -> Batch:
        """As :meth:`Batches.batch`; fast if batches are requested in order."""
        if not self._threaded:
            return self._make(number)
        future = self._next.pop(number, None) or self._pool.submit(self._make, number)
        self._next = {number + 1: self._pool.submit(self._make, number + 1)}
        return future.result()

    def _make(self, number: int) -> Batch:
        return Batch(*(to_device(tensor, self._device) for tensor in self._batches.batch(number)))
