"""The usual deviations of good images, and what they leave of a defect."""

from __future__ import annotations

import pytest
import torch

from decodiff_pipeline.deco.deviations import UsualDeviations

SHAPE = (4, 8, 8)


def varying(count: int, seed: int, directions: int = 3) -> torch.Tensor:
    """Deviations around a mean, along the same few directions whatever the seed."""
    patterns = torch.randn((directions + 1, *SHAPE), generator=torch.Generator().manual_seed(0))
    weights = torch.randn((count, directions), generator=torch.Generator().manual_seed(seed))
    return patterns[-1] + torch.einsum("nd,dchw->nchw", weights, patterns[:-1])


def test_what_good_images_share_is_removed_and_a_defect_stays() -> None:
    usual = UsualDeviations(categories=2, components=5, channels=4, latent_size=8)
    usual.fit(1, varying(20, seed=1))
    new = varying(3, seed=2)
    new[1, :, 4, 5] += 3.0
    left = usual.removed(torch.tensor([1, 1, 1]), new)
    assert left[[0, 2]].abs().max() < 1e-4
    size = left[1].square().mean(0).sqrt()
    assert size.argmax() == 4 * 8 + 5
    assert size[4, 5] > 0.9 * 3.0


def test_a_category_that_was_not_fitted_keeps_its_deviations() -> None:
    usual = UsualDeviations(categories=2, components=5, channels=4, latent_size=8)
    new = varying(2, seed=2)
    assert torch.equal(usual.removed(torch.tensor([0, 1]), new), new)


@pytest.mark.parametrize("count", [1, 3])
def test_few_images_give_few_components(count: int) -> None:
    usual = UsualDeviations(categories=1, components=5, channels=4, latent_size=8)
    good = varying(count, seed=1)
    usual.fit(0, good)
    assert usual.removed(torch.zeros(count, dtype=torch.long), good).abs().max() < 1e-4
    assert usual.directions[0, count - 1 :].abs().max() == 0
