"""Synthetic defects: repeatable, visible, where their masks say, of realistic size."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from decodiff_pipeline.data.synthetic_defects import (
    HARDER,
    VERSION,
    perlin_noise,
    synthetic_defect,
)
from decodiff_pipeline.data.synthetic_images import synthetic_images

SIDE = 96
versions = pytest.mark.parametrize("version", [VERSION, HARDER])


def photograph(seed: int, channels: int = 3) -> np.ndarray:
    """Stripes with grain, uint8 (SIDE, SIDE, 3)."""
    random = np.random.default_rng(seed)
    stripes = 120 + 60 * np.sin(np.arange(SIDE) / (4 + seed % 5))
    grain = random.normal(0, 5, (SIDE, SIDE, channels))
    image = np.clip(stripes[:, None, None] + grain, 0, 255).astype(np.uint8)
    return np.broadcast_to(image, (SIDE, SIDE, 3))


def test_a_defect_depends_on_its_arguments_alone() -> None:
    good, other = photograph(0), photograph(1)
    image, mask = synthetic_defect(good, "a", 0, other)
    again, same_mask = synthetic_defect(good, "a", 0, other)
    assert np.array_equal(image, again)
    assert np.array_equal(mask, same_mask)
    for identity, number in (("a", 1), ("b", 0)):
        assert not np.array_equal(image, synthetic_defect(good, identity, number, other)[0])


@versions
def test_the_mask_is_where_the_change_can_be_seen(version: int) -> None:
    good = photograph(0)
    before = good.copy()
    for number in range(30):
        image, mask = synthetic_defect(good, "a", number, photograph(number), version)
        change = abs(image.astype(int) - good).max(axis=2)
        assert image.dtype == np.uint8
        assert image.shape == good.shape
        assert change[mask].min() >= 12
        assert change[~mask].max() < 12
    assert np.array_equal(good, before)


def test_defects_are_small_and_of_many_sizes() -> None:
    areas = [synthetic_defect(photograph(0), "a", number)[1].mean() for number in range(60)]
    assert 0 < min(areas) < 0.005
    assert 0.03 < max(areas) < 0.2
    assert np.median(areas) < 0.05


def test_harder_defects_are_smaller_and_fainter() -> None:
    good = photograph(0)
    changes, areas = [], []
    for version in (VERSION, HARDER):
        drawn = [synthetic_defect(good, "a", number, None, version) for number in range(60)]
        changes.append(
            np.median([abs(image.astype(int) - good)[mask].mean() for image, mask in drawn])
        )
        areas.append(np.median([mask.mean() for _, mask in drawn]))
    assert changes[1] < changes[0]
    assert areas[1] < areas[0]


@versions
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_uniform_image_gets_a_visible_defect_too(level: int, version: int) -> None:
    good = np.full((SIDE, SIDE, 3), level, np.uint8)
    for number in range(20):
        assert synthetic_defect(good, "a", number, None, version)[1].any()


@versions
def test_a_grey_image_stays_grey(version: int) -> None:
    good, other = photograph(0, channels=1), photograph(1, channels=1)
    for number in range(30):
        image, _ = synthetic_defect(good, "a", number, other, version)
        assert not np.ptp(image, axis=2).any()


@pytest.mark.parametrize(("side", "cells"), [(64, (1, 1)), (50, (4, 16)), (33, (16, 2))])
def test_perlin_noise_is_zero_at_the_corners_of_its_cells_and_smooth(
    side: int, cells: tuple[int, int]
) -> None:
    noise = perlin_noise(np.random.default_rng(0), side * 8, cells)
    steps = np.maximum(abs(np.diff(noise, axis=0)).max(), abs(np.diff(noise, axis=1)).max())
    # slopes are at most about 2 per cell, whatever lattice line they cross
    assert steps < 3 * max(cells) / (side * 8)
    assert abs(noise).max() <= 1
    assert abs(noise[0, 0]) < 2 * max(cells) / (side * 8)


def manifest(digests: str, category: str = "a") -> pd.DataFrame:
    return pd.DataFrame({
        "category": category, "split": "val", "label": "good",
        "path": [f"{digest}.png" for digest in digests],
        "sha256": [16 * f"{ord(digest) * 37 % 256:02x}" + digest for digest in digests],
    })  # fmt: skip


def test_only_good_val_images_are_used_and_each_with_another_one() -> None:
    rows = manifest("abcdefgh")
    rows.loc[0, "split"] = "train"
    rows.loc[1, "label"] = "defective"
    found = synthetic_images(rows, 2)
    assert [image.path for image in found] == [f"{c}.png" for c in "cdefgh" for _ in range(2)]
    assert [image.number for image in found] == [0, 1] * 6
    used = {image.source_path for image in found}
    assert not used & {"a.png", "b.png"}
    assert all(image.source_path != image.path for image in found)
    assert len({image.identity for image in found}) == 12


def test_harder_defects_take_half_of_their_textures_from_the_same_category() -> None:
    rows = pd.concat([manifest("abcdefgh"), manifest("ijklmnopqrstuvwxyz0123456789", "b")])
    own = set(rows["path"][rows["category"] == "a"])
    harder = [image for image in synthetic_images(rows, 8, version=HARDER) if image.path in own]
    alike = [image.source_path in own for image in harder]
    assert 0.4 < np.mean(alike) < 0.8
    assert not any(image.source_path == image.path for image in harder)
    plain = {image.identity for image in synthetic_images(rows, 8)}
    assert not plain & {image.identity for image in harder}


def test_another_val_image_changes_few_defects() -> None:
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJ"
    before = {image.path: image.identity for image in synthetic_images(manifest(letters), 1)}
    after = synthetic_images(manifest(letters + "0"), 1)
    changed = [image.path for image in after if before.get(image.path) != image.identity]
    assert len(changed) < 9


def test_one_val_image_alone_is_its_own_source() -> None:
    (only,) = synthetic_images(manifest("a"), 1)
    assert only.source_path == only.path
    assert synthetic_images(manifest("a"), 0) == []
