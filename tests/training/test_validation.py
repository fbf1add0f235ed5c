"""Validation without labels: it ranks networks, repeats itself and leaves the training alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decodiff_pipeline.deco.config import CorruptionConfig
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.deco.unet import build_unet
from decodiff_pipeline.training.batches import Batch
from decodiff_pipeline.training.validation import SyntheticDefects, Validation, evenly_drawn

IMAGES = 6


class Corrector(torch.nn.Module):
    """Stands in for a network that knows the only normal latent: zero everywhere.

    Args:
        skill: Share of a deviation that it sees; 0 is a network that sees nothing.
    """

    dtype = torch.float32

    def __init__(self, skill: float) -> None:
        super().__init__()
        self.skill = skill
        self.scheduler = DeCoDiffScheduler()
        self.calls = 0

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, _: torch.Tensor
    ) -> torch.Tensor:
        self.calls += 1
        noise = torch.randn(sample.shape, generator=torch.Generator().manual_seed(self.calls))
        times = timestep.expand(len(sample)) if timestep.ndim == 0 else timestep
        scale = self.scheduler.noise_scale(times, sample)
        return (self.skill * sample + 0.2 * noise * sample.std()) / scale


def defects(categories: int = 1) -> SyntheticDefects:
    random = torch.Generator().manual_seed(0)
    good = 0.1 * torch.randn(IMAGES, 4, 8, 8, generator=random)
    masks = torch.zeros(IMAGES, 8, 8)
    masks[:, 2:4, 3:6] = 0.6
    masks[:, 4, 3] = 0.1
    defective = good + 0.5 * masks[:, None]
    return SyntheticDefects(good, defective, masks, torch.arange(IMAGES) % categories)


def validation(**options: object) -> Validation:
    held_out = [Batch(defects().good, torch.zeros(IMAGES).long())]
    return Validation(held_out, CorruptionConfig(), **options)  # type: ignore[arg-type]


def measured(network: torch.nn.Module, **options: object) -> dict[str, float]:
    judge = validation(**options)
    return judge.measure(network, DeCoDiffScheduler(), lambda batch: batch)  # type: ignore[arg-type]


def test_a_better_network_scores_better() -> None:
    good = measured(Corrector(1.0), synthetic=defects())
    blind = measured(Corrector(0.0), synthetic=defects())
    assert good["synthetic_pixel_ap"] > 0.95 > blind["synthetic_pixel_ap"] + 0.2
    assert good["synthetic_image_auroc"] > 0.95
    assert tuple(good) == validation(synthetic=defects()).names


def test_categories_count_alike() -> None:
    """Of two categories one is hopeless: its masks lie where nothing deviates."""
    both = defects(categories=2)
    wrong = both.masks.flip((1, 2))
    masks = torch.where((both.category_ids == 1)[:, None, None], wrong, both.masks)
    mixed = SyntheticDefects(both.good, both.defective, masks, both.category_ids)
    found = measured(Corrector(1.0), synthetic=mixed)
    assert 0.45 < found["synthetic_pixel_ap"] < 0.65


def test_without_synthetic_defects_there_is_the_held_out_loss_alone() -> None:
    judge = validation()
    assert judge.names == ("held_out_loss",)
    assert set(measured(Corrector(1.0))) == {"held_out_loss"}
    nothing = Validation([], CorruptionConfig())
    assert not nothing
    assert nothing.names == ()
    unet = Corrector(1.0)
    assert nothing.measure(unet, DeCoDiffScheduler(), lambda batch: batch) == {}  # type: ignore[arg-type]


def test_a_network_that_gives_no_numbers_is_not_an_error_here() -> None:
    found = measured(Corrector(float("nan")), synthetic=defects())
    assert all(np.isnan(value) for value in found.values())
    assert tuple(found) == validation(synthetic=defects()).names


def test_measuring_repeats_itself_and_leaves_no_trace() -> None:
    unet = build_unet("nano", ["a"], 8, 4, dropout=0.5).train()
    scheduler = DeCoDiffScheduler()
    scheduler.set_timesteps(5)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    judge = validation(synthetic=defects())
    first, second = (judge.measure(unet, scheduler, lambda batch: batch) for _ in range(2))
    assert first == second
    assert torch.equal(torch.rand(3), expected)
    assert unet.training
    assert scheduler.timesteps.tolist() == [8, 6, 4, 2, 0]
    assert all(parameter.grad is None for parameter in unet.parameters())


@pytest.mark.parametrize(("counts", "most"), [([300, 300], 128), ([500, 3], 128), ([4, 4], 128)])
def test_images_are_drawn_evenly_over_the_categories(counts: list[int], most: int) -> None:
    ids = np.repeat(np.arange(len(counts)), counts)
    chosen = evenly_drawn(ids, most)
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= most
    share = most // len(counts)
    assert np.bincount(ids[chosen]).tolist() == [min(count, share) for count in counts]
