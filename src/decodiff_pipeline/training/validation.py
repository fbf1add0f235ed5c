"""Metrics of a network during training, on val images and without labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from decodiff_pipeline.compute.group import ALONE, Group
from decodiff_pipeline.deco.config import ImageScoreConfig
from decodiff_pipeline.deco.discrepancy import image_scores, latent_discrepancy
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler, reverse_process
from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.metrics.exact import image_metrics, pixel_metrics
from decodiff_pipeline.training.batches import Batch
from decodiff_pipeline.training.objective import held_out_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from decodiff_pipeline.deco.config import CorruptionConfig
    from decodiff_pipeline.deco.unet import DeCoDiffUNet

# Two reverse steps rank networks as five do, in two fifths of the time.
STEPS = 2
MAX_IMAGES = 256  # good and defective images together
# A latent cell is defective if at least this share of its pixels is: a scratch of two pixels'
# width counts in a cell of eight.
DEFECTIVE_SHARE = 0.25
SYNTHETIC_METRICS = ("synthetic_image_auroc", "synthetic_pixel_ap")
SCORE = ImageScoreConfig(top_share=0.01)


@dataclass(frozen=True)
class SyntheticDefects:
    """Latents of good val images, and of the same images with a synthetic defect."""

    good: torch.Tensor  # latents as cached, float32 (N, C, h, w)
    defective: torch.Tensor  # latents of the images with defects, float32 (N, C, h, w)
    masks: torch.Tensor  # defective share of each latent cell, float32 (N, h, w) within 0…1
    category_ids: torch.Tensor  # int64 (N,)


def evenly_drawn(category_ids: np.ndarray, most: int) -> list[int]:
    """Select images, at most as many of each category as its equal share of ``most``.

    Args:
        category_ids: int64 (N,).
        most: Number of images in all; every category keeps at least one.

    Returns:
        Indices, ascending, evenly spaced within each category.
    """
    selected: list[int] = []
    categories = np.unique(category_ids)
    for category in categories:
        members = np.flatnonzero(category_ids == category)
        count = min(len(members), max(1, most // len(categories)))
        spaced = np.linspace(0, len(members) - 1, count).round().astype(int)
        selected.extend(members[spaced].tolist())
    return sorted(selected)


class Validation:
    """Measures a network on val images; deterministic.

    It does not draw from torch's global generator, so that it has no influence on the training.
    Its length is the number of val batches; if it is 0, nothing is measured.

    Args:
        synthetic: Synthetic defects; at most 128 are used, balanced over the categories.
        batch_size: Images per pass of the reverse process.
        inside: Latent cells inside of the regions, bool (N, h, w), for each synthetic defect;
            ``None`` for all.
    """

    def __init__(
        self,
        batches: Sequence[Batch],
        corruption: CorruptionConfig,
        synthetic: SyntheticDefects | None = None,
        batch_size: int = 32,
        inside: torch.Tensor | None = None,
    ) -> None:
        self.inside = inside
        self.batches = batches
        self.corruption = corruption
        self.synthetic = synthetic
        self.batch_size = batch_size

    def __len__(self) -> int:
        """Number of val batches."""
        return len(self.batches)

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that :meth:`measure` returns."""
        if not self.batches:
            return ()
        return ("held_out_loss", *(SYNTHETIC_METRICS if self.synthetic else ()))

    def require(self, monitor: str) -> None:
        """Check that a metric can be monitored.

        Raises:
            ConfigurationError: There are no images to measure it on.
        """
        if monitor in self.names:
            return
        measured = ", ".join(self.names) or "nothing: there are no good val images"
        cure = "put good images of the trained categories into val"
        if self.names:
            cure = "set latent_cache.synthetic_defects to 1 and run the latent caching again"
        raise ConfigurationError(
            f"training.patience and training.weights: best need {monitor} (training.monitor), but "
            f"validation measures {measured}; {cure}, choose another training.monitor, or set "
            "training.patience to null and training.weights to last"
        )

    def measure(
        self,
        unet: DeCoDiffUNet,
        scheduler: DeCoDiffScheduler,
        prepare: Callable[[Batch], Batch],
        group: Group = ALONE,
    ) -> dict[str, float]:
        """Measure a network.

        Args:
            unet: The network; dropout is off during the measurement.
            scheduler: The forward process; it is not changed.
            prepare: Moves a batch to the network's device and standardises its latents.
            group: The processes that divide the work; each has the same network.

        Returns:
            ``held_out_loss``: the training objective, with the same corruption at each call. With
            synthetic defects also ``synthetic_image_auroc`` (against the same images without the
            defect) and ``synthetic_pixel_ap`` (over latent cells), means over the categories
            within 0…1; NaN if the network's output is not finite. Both use the latent discrepancy
            alone, after two reverse steps: they rank networks, and do not predict the finished
            model's metrics. Empty without val images.
        """
        if not self.batches:
            return {}
        batches = [prepare(batch) for batch in self.batches]
        measured = {
            "held_out_loss": held_out_loss(unet, scheduler, batches, self.corruption, group)
        }
        if self.synthetic is not None:
            measured |= self._synthetic_metrics(unet, scheduler, prepare, self.synthetic, group)
        return measured

    def _synthetic_metrics(
        self,
        unet: DeCoDiffUNet,
        scheduler: DeCoDiffScheduler,
        prepare: Callable[[Batch], Batch],
        synthetic: SyntheticDefects,
        group: Group,
    ) -> dict[str, float]:
        selected = evenly_drawn(synthetic.category_ids.numpy(), MAX_IMAGES // 2)
        ids = synthetic.category_ids[selected]
        reverse = DeCoDiffScheduler.from_config(scheduler.config)
        reverse.set_timesteps(STEPS)
        was_training = unet.training
        unet.eval()
        size = self.batch_size
        batches = [
            Batch(*parts)
            for latents in (synthetic.good, synthetic.defective)
            for parts in zip(latents[selected].split(size), ids.split(size), strict=True)
        ]
        share = batches[group.part(len(batches))]
        measured = [_discrepancy(unet, reverse, prepare(batch)).tolist() for batch in share]
        gathered = group.gather(measured)
        maps = np.array([one for part in gathered for batch in part for one in batch], np.float32)
        good, defective = np.split(maps, 2)
        unet.train(was_training)
        if not (np.isfinite(good).all() and np.isfinite(defective).all()):
            return dict.fromkeys(SYNTHETIC_METRICS, math.nan)
        if self.inside is not None:
            inside = self.inside[selected].numpy()
            good, defective = good * inside, defective * inside
        return _mean_metrics(good, defective, _cells(synthetic.masks[selected]), ids.numpy())


def _discrepancy(unet: DeCoDiffUNet, scheduler: DeCoDiffScheduler, batch: Batch) -> np.ndarray:
    corrected = reverse_process(unet, scheduler, batch.latents, batch.category_ids)
    return latent_discrepancy(corrected, batch.latents, "rms").cpu().numpy()


def _cells(shares: torch.Tensor) -> np.ndarray:
    """Defective cells, bool (N, h, w); at least one in each image."""
    strongest = shares.amax((1, 2), keepdim=True)
    return (shares >= strongest.clamp(max=DEFECTIVE_SHARE)).numpy()


def _mean_metrics(
    good: np.ndarray, defective: np.ndarray, masks: np.ndarray, ids: np.ndarray
) -> dict[str, float]:
    auroc, precision = [], []
    for category in np.unique(ids):
        members = ids == category
        maps = np.concatenate([defective[members], good[members]])
        count = int(members.sum())
        pixel = pixel_metrics(maps, [*masks[members], *[None] * count], workers=1)
        image = image_metrics(image_scores(maps, SCORE), np.arange(2 * count) < count)
        auroc.append(image["image_auroc"])
        precision.append(pixel["pixel_ap"])
    means = (float(np.mean(np.array(values, float))) for values in (auroc, precision))
    return dict(zip(SYNTHETIC_METRICS, means, strict=True))
