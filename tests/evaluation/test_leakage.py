"""Which test images were all but seen in training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest

from decodiff_pipeline.data.duplicates import MIN_BITS
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.manifest import DataConfig, build_manifest
from decodiff_pipeline.evaluation.assessment import near_duplicates

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BITS = 12


def hashed(bits: int) -> str:
    """A difference hash that many bits from the first one, which has enough to say something."""
    return f"{(1 << bits + MIN_BITS) - 1:064x}"


def manifest() -> pd.DataFrame:
    rows = [
        ("a", "train", "good", "train", "s0", hashed(0)),
        ("a", "calibration", "good", "calibration", "s1", hashed(200)),
        ("a", "test", "good", "near", "s2", hashed(BITS)),
        ("a", "test", "defective", "near calibration", "s3", hashed(200 - BITS)),
        ("a", "test", "good", "far", "s4", hashed(BITS + 1)),
        ("b", "train", "good", "train b", "s5", hashed(100)),
        ("b", "test", "good", "alike in another category", "s6", hashed(0)),
        ("b", "test", "uncertain", "equal bytes", "s0", hashed(150)),
        ("c", "test", "good", "without train images", "s7", hashed(0)),
    ]
    columns = ["category", "split", "label", "path", "sha256", "dhash"]
    return pd.DataFrame(rows, columns=columns, index=range(10, 19))


def paths_of_doubles(rows: pd.DataFrame, bits: int | None) -> set[str]:
    return set(rows["path"][near_duplicates(rows, bits)])


def test_doubles_are_found_within_the_category_and_equal_bytes_anywhere() -> None:
    found = near_duplicates(manifest(), BITS)
    assert found.index.equals(manifest().index)
    assert found.dtype == bool
    assert set(manifest()["path"][found]) == {"near", "near calibration", "equal bytes"}
    assert paths_of_doubles(manifest(), BITS + 1) >= {"far", "near"}
    assert not paths_of_doubles(manifest(), None)
    assert near_duplicates(manifest().head(0), BITS).empty


@pytest.mark.parametrize(
    ("rows", "bits"),
    [
        (manifest(), 0),
        (manifest().drop(columns="dhash"), BITS),
        # Hashes of blank sheets and of ramps say nothing.
        (manifest().assign(dhash=f"{(1 << MIN_BITS - 1) - 1:064x}"), BITS),
        (manifest().assign(dhash=f"{(1 << 256 - MIN_BITS + 1) - 1:064x}"), BITS),
    ],
)
def test_equal_bytes_alone_count_without_hashes_that_say_something(
    rows: pd.DataFrame, bits: int
) -> None:
    assert paths_of_doubles(rows, bits) == {"equal bytes"}


@pytest.mark.slow
def test_tiles_photographed_several_times_are_found(real_data: Callable[[str], Path]) -> None:
    """119 of its 191 good test images are known to have a double in train."""
    rows = build_manifest(ImageFolder(real_data("magnetic_tile")), DataConfig(layout="mvtec"))
    share = near_duplicates(rows, BITS)[rows["split"] == "test"].groupby(rows["label"]).mean()
    assert 90 / 191 < share["good"] < 119 / 191
    assert share["defective"] < 0.03
