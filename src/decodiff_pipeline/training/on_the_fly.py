"""Latents that are encoded during training, with a new view of every image in every epoch."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from decodiff_pipeline.compute.group import ALONE, Group
from decodiff_pipeline.data.latent_cache import LatentMoments
from decodiff_pipeline.data.read_ahead import READERS
from decodiff_pipeline.data.transforms import augmented_square
from decodiff_pipeline.deco.autoencoder import encode, load_autoencoder
from decodiff_pipeline.deco.device import resolve_bfloat16, resolve_device
from decodiff_pipeline.deco.preprocess import to_tensor
from decodiff_pipeline.training.batches import Batches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import pandas as pd

    from decodiff_pipeline.data.caching import LatentCacheConfig
    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.data.transforms import AugmentationConfig
    from decodiff_pipeline.deco.autoencoder import Autoencoder
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.deco.weights import AutoencoderConfig
    from decodiff_pipeline.training.config import TrainingConfig


class TrainingImage(NamedTuple):
    """A training image.

    Attributes:
        path: POSIX path, relative to the root of the raw images.
        sha256: Digest of the file; it seeds the augmentation, so that names have no influence.
        category_id: Row of the category embedding.
    """

    path: str
    sha256: str
    category_id: int


def on_the_fly_batches(
    rows: pd.DataFrame,
    category_ids: Mapping[str, int],
    images: ImageFolder,
    geometry: PreprocessConfig,
    autoencoder: AutoencoderConfig,
    latents: LatentCacheConfig,
    config: TrainingConfig,
    group: Group = ALONE,
) -> OnTheFlyBatches:
    """Load the autoencoder and make the batches of a training run.

    Args:
        rows: Manifest rows of the good train images.
        category_ids: Row of the category embedding, by category.

    Raises:
        ConfigurationError: The autoencoder cannot be loaded.
    """
    device = resolve_device()
    model = load_autoencoder(autoencoder).to(
        device=device,
        dtype=torch.bfloat16 if resolve_bfloat16(latents.bfloat16, device) else torch.float32,
        memory_format=torch.channels_last,
    )
    ids = rows["category"].map(category_ids)
    return OnTheFlyBatches(
        images,
        list(map(TrainingImage, rows["path"], rows["sha256"], ids)),
        model,
        geometry=geometry,
        augmentation=latents.augmentation,
        encode_at_once=latents.batch_size,
        batch_size=config.batch_size,
        seed=config.seed,
        sample_posterior=config.sample_posterior,
        category_balance=config.category_balance,
        group=group,
    )


class OnTheFlyBatches(Batches):
    """Batches that are encoded on request.

    Each image has another view in each epoch; the views depend on the seed. The order of the
    images is that of :class:`~decodiff_pipeline.training.batches.LatentBatches`. Threads read and
    augment the images of the next batch meanwhile.

    Args:
        autoencoder: In eval mode; it runs on its device and in its precision.
        encode_at_once: Images per pass of the autoencoder, which bounds the memory.
        group: The processes that divide each batch among themselves for encoding.
    """

    def __init__(
        self,
        images: ImageFolder,
        chosen: Sequence[TrainingImage],
        autoencoder: Autoencoder,
        *,
        geometry: PreprocessConfig,
        augmentation: AugmentationConfig,
        batch_size: int,
        seed: int,
        encode_at_once: int = 16,
        sample_posterior: bool = True,
        category_balance: float = 0.0,
        group: Group = ALONE,
    ) -> None:
        super().__init__(
            [image.category_id for image in chosen],
            batch_size=batch_size,
            seed=seed,
            sample_posterior=sample_posterior,
            category_balance=category_balance,
        )
        self.images = images
        self.chosen = chosen
        self.autoencoder = autoencoder
        self.geometry = geometry
        self.augmentation = augmentation
        self.encode_at_once = encode_at_once
        self.group = group
        self._pool = ThreadPoolExecutor(READERS)
        self._ahead: dict[int, list[Future[np.ndarray]]] = {}

    def identity(self) -> dict[str, Any]:
        """Augmentation, precision and passes of the autoencoder, as JSON values."""
        return {
            "augmentation": asdict(self.augmentation),
            "autoencoder_dtype": str(self.autoencoder.dtype).removeprefix("torch."),
            "encode_at_once": self.encode_at_once,
        }

    def _encoded(self, number: int) -> tuple[torch.Tensor, LatentMoments]:
        futures = self._ahead.pop(number, None) or self._read(number)
        for unused in self._ahead.values():  # batches were requested out of order
            for future in unused:
                future.cancel()
        self._ahead = {number + 1: self._read(number + 1)}
        squares = [future.result() for future in futures]
        parts = []
        for start in range(0, len(squares), self.encode_at_once):
            tensor = to_tensor(squares[start : start + self.encode_at_once])
            channels_last = tensor.contiguous(memory_format=torch.channels_last)
            parts.append(encode(self.autoencoder, channels_last))
        positions = self._positions(number)[1]
        mean, std = (
            self.group.concatenated(torch.cat(moments), len(positions))
            for moments in zip(*parts, strict=True)
        )
        return positions, LatentMoments(mean, std)

    def _read(self, number: int) -> list[Future[np.ndarray]]:
        epoch, positions = self._positions(number)
        # At least one image, since the autoencoder takes no empty batch.
        part = positions[self.group.part(len(positions))].tolist() or positions[:1].tolist()
        return [self._pool.submit(self._square, self.chosen[position], epoch) for position in part]

    def _square(self, image: TrainingImage, epoch: int) -> np.ndarray:
        # View 0 is the image without augmentation.
        return augmented_square(
            self.images.read(image.path),
            self.geometry,
            self.augmentation,
            f"{self.seed}:{image.sha256}",
            epoch + 1,
        )

    def _positions(self, number: int) -> tuple[int, torch.Tensor]:
        epoch, part = self._slice(number)
        return epoch, self._order(epoch)[0][part]
