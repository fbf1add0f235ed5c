"""What the corruption does to a batch."""

from __future__ import annotations

import pytest
import torch

from decodiff_pipeline.deco.config import CorruptionConfig
from decodiff_pipeline.deco.corruption import draw_corruption
from decodiff_pipeline.errors import ConfigurationError


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_same_seed_gives_the_same_corruption() -> None:
    latents = torch.randn(4, 4, 16, 16, generator=random(0))
    first, second, other = (
        draw_corruption(latents, CorruptionConfig(), random(s)) for s in (1, 1, 2)
    )
    assert all(map(torch.equal, first, second))
    assert not torch.equal(first[1], other[1])


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_masks_are_made_of_whole_patches(patch: int) -> None:
    config = CorruptionConfig(patch_sizes=(patch, 99), patch_probabilities=(1.0, 0.0))
    mask, _ = draw_corruption(torch.zeros(8, 4, 16, 16), config, random(3))
    tiles = mask.unfold(2, patch, patch).unfold(3, patch, patch).flatten(4)
    assert torch.equal(tiles.amin(-1), tiles.amax(-1))
    assert 0 < mask.mean() < 1


def test_the_corrupted_share_is_uniform_up_to_the_mask_ratio() -> None:
    config = CorruptionConfig(patch_sizes=(1, 99), patch_probabilities=(1.0, 0.0))
    mask, _ = draw_corruption(torch.zeros(2000, 1, 16, 16), config, random(0))
    shares = 1 - mask.mean((1, 2, 3))
    assert shares.max() <= 0.7 + 1 / 256
    assert shares.mean() == pytest.approx(0.35, abs=0.02)
    assert shares.std() == pytest.approx(0.7 / 12**0.5, abs=0.02)


def test_foreign_noise_is_taken_from_the_batch() -> None:
    latents = 100 + torch.arange(4.0 * 16 * 16).reshape(4, 1, 16, 16)  # no Gaussian comes near
    config = CorruptionConfig(
        patch_sizes=(4, 99), patch_probabilities=(1.0, 0.0), max_shuffle_ratio=1.0
    )
    _, noise = draw_corruption(latents, config, random(5))
    foreign = noise[noise > 50]
    assert len(foreign) > 0
    assert torch.isin(foreign, latents).all()


def test_without_shuffling_all_noise_is_gaussian() -> None:
    latents = torch.full((64, 4, 16, 16), 100.0)
    _, noise = draw_corruption(latents, CorruptionConfig(max_shuffle_ratio=0.0), random(0))
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.std() == pytest.approx(1, abs=0.01)


def test_sizes_that_do_not_divide_are_dropped_and_the_last_is_half_the_latent() -> None:
    config = CorruptionConfig()
    assert config.sizes_for(32) == pytest.approx({1: 0.3, 2: 0.25, 4: 0.2, 8: 0.15, 16: 0.1})
    assert config.sizes_for(28) == pytest.approx({1: 0.3 / 0.85, 2: 0.25 / 0.85, 4: 0.2 / 0.85,
                                                  14: 0.1 / 0.85})  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "probabilities", "said"),
    [
        ((), (), "patch_sizes are an empty list; give at least one"),
        ((1, 0), (0.5, 0.5), "patch_sizes are 1, 0; give"),
        ((1, 2), (0.5, -0.1), "patch_probabilities are 0.5, -0.1; none may be negative"),
        ((1, 2), (0.5, float("nan")), "patch_probabilities are 0.5, nan; none"),
        ((1, 2), (0.0, 0.0), "they must not all be 0"),
    ],
)
def test_patches_that_cannot_be_drawn_are_refused(
    sizes: tuple[int, ...], probabilities: tuple[float, ...], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        CorruptionConfig(patch_sizes=sizes, patch_probabilities=probabilities)


def test_no_size_that_divides_the_latent_is_told() -> None:
    config = CorruptionConfig(patch_sizes=(5, 2), patch_probabilities=(1.0, 0.0))
    with pytest.raises(ConfigurationError, match="patch sizes 5, 4 with a probability above 0"):
        config.sizes_for(8)


def test_noise_drawn_on_the_device_is_gaussian_repeatable_and_leaves_the_masks_alone() -> None:
    latents = torch.zeros(64, 4, 16, 16)
    (kept, noise), (same, again), (fixed, other) = (
        draw_corruption(latents, CorruptionConfig(max_shuffle_ratio=0.0, device=place), random(3))
        for place in ("training", "training", "cpu")
    )
    assert kept.equal(fixed)
    assert kept.equal(same)
    assert noise.equal(again)
    assert not noise.equal(other)
    assert noise.mean().abs() < 0.01
    assert (noise.std() - 1).abs() < 0.01
