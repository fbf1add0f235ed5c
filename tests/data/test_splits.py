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


def test_few_images_are_shared_by_count_and_more_by_hash_alone() -> None:
    for seed in range(200):
        for count in (20, 60, 99):
            shared = Counter(default(digests(count), seed=seed, version=2).values())
            assert min(shared["val"], shared["calibration"]) >= count // 10
        hashed = {name: unit_hash(seed, name) for name in digests(100)}
        for name, split in default(list(hashed), seed=seed, version=2).items():
            u = hashed[name]
            assert split == ("val" if u < 0.1 else "calibration" if u < 0.2 else "train")


def test_the_next_images_by_hash_fill_up_a_split() -> None:
    names = digests(60)
    by_hash = sorted(names, key=lambda name: unit_hash(8, name))
    drawn = {s: sum(lo <= unit_hash(8, n) < lo + 0.1 for n in names) for s, lo in
             (("val", 0.0), ("calibration", 0.1))}  # fmt: skip
    splits = default(names, seed=8, version=2)
    assert Counter(splits.values())["train"] == 60 - sum(max(6, n) for n in drawn.values())
    assert drawn == {"val": 4, "calibration": 2}
    held_out = sum(max(6, n) for n in drawn.values())
    assert {splits[name] for name in by_hash[held_out:]} == {"train"}
    assert default(names[::-1], seed=8, version=2) == splits
    kept = Counter(default(names, seed=8).values())  # earlier data sets keep their assignment
    assert (kept["val"], kept["calibration"]) == (4, 2)


def test_a_share_of_zero_leaves_its_split_empty() -> None:
    splits = default(digests(50), val_fraction=0.0, calibration_fraction=0.0)
    assert set(splits.values()) == {"train"}
    assert default([]) == {}
