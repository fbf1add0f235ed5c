"""What a network in training is worth, measured on val images and without a single label."""

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

# Two reverse steps rank networks as five do, at two fifths of the time.
STEPS = 2
MAX_IMAGES = 256  # good and defective ones together
# A latent cell is defective where this share of its pixels is; a scar of two pixels' width must
# count in a cell of eight.
DEFECTIVE_SHARE = 0.25
SYNTHETIC_METRICS = ("synthetic_image_auroc", "synthetic_pixel_ap")
SCORE = ImageScoreConfig(top_share=0.01)


@dataclass(frozen=True)
class SyntheticDefects:
    """Latents of good val images, and of the same images with a synthetic defect."""

    good: torch.Tensor  # latents as cached, float32 (N, C, h, w)
    defective: torch.Tensor  # the same for the images with defects
    masks: torch.Tensor  # share of each latent cell that is defective, float32 (N, h, w) within 0…1
    category_ids: torch.Tensor  # int64 (N,)


def evenly_drawn(category_ids: np.ndarray, most: int) -> list[int]:
    """At most so many images, as many of each category as there are or as its share allows.

    Args:
        category_ids: int64 (N,).
        most: How many in all; every category keeps at least one.

    Returns:
        Positions, ascending.
    """
    chosen: list[int] = []
    names = np.unique(category_ids)
    for name in names:
        own = np.flatnonzero(category_ids == name)
        count = min(len(own), max(1, most // len(names)))
        chosen.extend(own[np.linspace(0, len(own) - 1, count).round().astype(int)].tolist())
    return sorted(chosen)


class Validation:
    """Measures a network on val images; the same network gives the same figures every time.

    It draws nothing from torch's global generator, so that measuring leaves the training as it
    was. Its length is the number of held-out batches; nothing can be measured where it is 0.

    Args:
        synthetic: Synthetic defects; of more than 128, as many of each category are used.
        batch_size: Images that are corrected at once.
        inside: The latent cells of each that count, bool (N, h, w); ``None`` for all.
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
        """Held-out batches."""
        return len(self.batches)

    @property
    def names(self) -> tuple[str, ...]:
        """What :meth:`measure` will return."""
        if not self.batches:
            return ()
        return ("held_out_loss", *(SYNTHETIC_METRICS if self.synthetic else ()))

    def require(self, monitor: str) -> None:
        """See to it that a run can be watched by a figure.

        Raises:
            ConfigurationError: There is nothing to measure it on.
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
        """Judge a network.

        Args:
            unet: The network; dropout is switched off for the measurement.
            scheduler: The forward process; it is left as it is.
            prepare: Brings a batch to the network's device and units.
            group: The processes that share the work; each has the same network.

        Returns:
            ``held_out_loss``: the training objective, with the same corruption every time; and,
            where there are synthetic defects, means over the categories of
            ``synthetic_image_auroc`` (against the same images without the defect) and
            ``synthetic_pixel_ap`` (over the cells of the latents), both within 0…1. They are of
            the latent discrepancy alone, after two reverse steps: figures to compare networks
            by, not what the finished model will reach. NaN of a network that gives no numbers.
            Nothing where there are no val images.
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
        chosen = evenly_drawn(synthetic.category_ids.numpy(), MAX_IMAGES // 2)
        ids = synthetic.category_ids[chosen]
        reverse = DeCoDiffScheduler.from_config(scheduler.config)
        reverse.set_timesteps(STEPS)
        was_training = unet.training
        unet.eval()
        size = self.batch_size
        batches = [
            Batch(*parts)
            for latents in (synthetic.good, synthetic.defective)
            for parts in zip(latents[chosen].split(size), ids.split(size), strict=True)
        ]
        share = batches[group.part(len(batches))]
        own = [_discrepancy(unet, reverse, prepare(batch)) for batch in share]
        every = group.gather([each.tolist() for each in own])
        maps = np.array([one for part in every for batch in part for one in batch], np.float32)
        good, defective = np.split(maps, 2)
        unet.train(was_training)
        if not (np.isfinite(good).all() and np.isfinite(defective).all()):
            return dict.fromkeys(SYNTHETIC_METRICS, math.nan)
        if self.inside is not None:
            inside = self.inside[chosen].numpy()
            good, defective = good * inside, defective * inside
        return _mean_metrics(good, defective, _cells(synthetic.masks[chosen]), ids.numpy())


def _discrepancy(unet: DeCoDiffUNet, scheduler: DeCoDiffScheduler, batch: Batch) -> np.ndarray:
    corrected = reverse_process(unet, scheduler, batch.latents, batch.category_ids)
    return latent_discrepancy(corrected, batch.latents, "rms").cpu().numpy()


def _cells(shares: torch.Tensor) -> np.ndarray:
    """bool (N, h, w): the cells that count as defective, in every image at least one."""
    strongest = shares.amax((1, 2), keepdim=True)
    return (shares >= strongest.clamp(max=DEFECTIVE_SHARE)).numpy()


def _mean_metrics(
    good: np.ndarray, defective: np.ndarray, masks: np.ndarray, ids: np.ndarray
) -> dict[str, float]:
    auroc, precision = [], []
    for category in np.unique(ids):
        own = ids == category
        maps = np.concatenate([defective[own], good[own]])
        count = int(own.sum())
        pixel = pixel_metrics(maps, [*masks[own], *[None] * count], workers=1)
        image = image_metrics(image_scores(maps, SCORE), np.arange(2 * count) < count)
        auroc.append(image["image_auroc"])
        precision.append(pixel["pixel_ap"])
    means = (float(np.mean(np.array(values, float))) for values in (auroc, precision))
    return dict(zip(SYNTHETIC_METRICS, means, strict=True))
