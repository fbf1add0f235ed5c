from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from decodiff_pipeline.data.splits import assign_splits, unit_hash


def digests(count: int) -> list[str]:
    return [hashlib.sha256(str(i).encode()).hexdigest() for i in range(count)]


def default(names: list[str], **options: float) -> dict[str, str]:
    settings = {"seed": 0, "val_fraction": 0.1, "calibration_fraction": 0.1} | options
    return assign_splits(names, **settings)


def test_the_rule_is_the_documented_one() -> None:
    name = digests(1)[0]
    u = int(hashlib.sha256(f"7:{name}".encode()).hexdigest()[:8], 16) / 2**32
    assert unit_hash(7, name) == u
    for one, split in default(digests(500)).items():
        u = unit_hash(0, one)
        assert split == ("val" if u < 0.1 else "calibration" if u < 0.2 else "train")


def test_shares_come_out_about_right_and_splits_differ_by_seed() -> None:
    names = digests(5000)
    counts = Counter(default(names).values())
    assert counts["val"] / 5000 == pytest.approx(0.1, abs=0.02)
    assert counts["calibration"] / 5000 == pytest.approx(0.1, abs=0.02)
    assert default(names, seed=1) != default(names)


def test_a_split_depends_on_the_content_alone() -> None:
    names = digests(400)
    whole = default(names)
    half = default(names[::-2])
    assert all(whole[name] == split for name, split in half.items())
    assert default([*names, *names]) == whole


def test_test_images_are_drawn_apart_from_the_rest() -> None:
    names = digests(5000)
    splits = default(names, test_fraction=0.2)
    counts = Counter(splits.values())
    assert counts["test"] / 5000 == pytest.approx(0.2, abs=0.02)
    assert counts["val"] / (5000 - counts["test"]) == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("count", range(1, 60))
def test_train_is_never_empty_and_few_images_still_fill_each_split(count: int) -> None:
    for seed in range(20):
        splits = default(digests(count), seed=seed)
        assert "train" in splits.values()
        if count >= 4:
            assert set(splits.values()) == {"train", "val", "calibration"}
        assert "train" in default(digests(count), seed=seed, val_fraction=0.99).values()


def test_a_share_of_zero_leaves_its_split_empty() -> None:
    splits = default(digests(50), val_fraction=0.0, calibration_fraction=0.0)
    assert set(splits.values()) == {"train"}
    assert default([]) == {}
