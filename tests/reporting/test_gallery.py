"""Which images the gallery shows, in which order, and what its pictures are."""

from __future__ import annotations

import base64
import io
import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from decodiff_pipeline.evaluation.thresholds import fit_thresholds
from decodiff_pipeline.reporting.gallery import (
    HEAT_BYTES,
    INPUT_BYTES,
    RECONSTRUCTION_BYTES,
    make_gallery,
    rank_hard_examples,
)
from decodiff_pipeline.reporting.pictures import data_uri, outline

if TYPE_CHECKING:
    from tests.evaluation.conftest import World


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/webp;base64,"))))


def test_the_worst_misses_and_false_alarms_come_first_and_categories_take_turns() -> None:
    rows = pd.DataFrame(
        [
            ("a", "good", 0.1), ("a", "good", 0.4), ("a", "good", 0.9), ("a", "good", 0.6),
            ("a", "defective", 0.3), ("a", "defective", 0.8), ("a", "uncertain", 0.55),
            ("b", "defective", 7.0), ("b", "good", 1.0),
            ("c", "defective", 0.2), ("c", "good", 0.6),
        ],
        columns=["category", "label", "score"],
    )  # fmt: skip
    ordered = rank_hard_examples(rows, {"a": 0.5, "b": 8.0})
    told = list(zip(ordered["category"], ordered["score"], ordered["verdict"], strict=True))
    assert told == [
        ("a", 0.9, "false alarm"), ("b", 7.0, "missed"),
        ("a", 0.3, "missed"), ("a", 0.6, "false alarm"),
        # right decisions, closest to the threshold first; c has no threshold: highest first
        ("a", 0.55, "uncertain"), ("b", 1.0, "passed"), ("c", 0.6, "good"),
        ("a", 0.4, "passed"), ("c", 0.2, "defective"),
        ("a", 0.8, "detected"), ("a", 0.1, "passed"),
    ]  # fmt: skip


def test_the_gallery_keeps_the_rank_hard_examples_and_counts_the_rest(plate: World) -> None:
    store = plate.scored()
    thresholds = fit_thresholds(store, 0.05)
    # Above two of the four defective images.
    scores = store.index().query("split == 'test' and label == 'defective'")["score"]
    thresholds["categories"]["plate"]["threshold"] = float(scores.sort_values().iloc[2])
    gallery = make_gallery(store.index(), store, plate.images, thresholds, 3)
    assert gallery.total == 13
    assert [item.verdict for item in gallery.items[:2]] == ["missed", "missed"]
    assert gallery.items[0].score == scores.min()
    assert len(gallery.items) == 3


def test_pictures_show_the_heat_and_the_outline_where_the_defect_is(world: World) -> None:
    world.add("plate", "test", "defective", 1, mask=True)
    store = world.scored()
    (item,) = make_gallery(store.index(), store, world.images, fit_thresholds(store, 0.05), 5).items
    opacity = np.asarray(decoded(item.heat))[..., 3].astype(int)
    assert opacity[22:34, 22:34].min() > opacity[:16].max() + 50  # the square is at 20…36
    edges = {"M20 20h16", "M20 36h16", "M20 20v16", "M36 20v16"}
    assert set(re.findall(r"M\d+ \d+[hv]\d+", item.outline)) == edges
    assert decoded(item.input).size == decoded(item.reconstruction).size == (64, 64)


def test_a_picture_never_breaks_its_budget() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (320, 320, 3), dtype=np.uint8)
    for budget in (INPUT_BYTES, RECONSTRUCTION_BYTES, HEAT_BYTES, 600):
        uri = data_uri(Image.fromarray(noise), budget)
        assert len(uri) <= budget * 4 / 3 + 30
        assert decoded(uri).mode == "RGB"
    whole = 500 * (INPUT_BYTES + RECONSTRUCTION_BYTES + HEAT_BYTES) * 4 / 3
    assert whole + 500 * (1_500 + 8_000) < 25e6  # pictures, text, the longest outlines seen


def test_an_outline_keeps_thin_defects_at_a_smaller_size() -> None:
    mask = np.zeros((100, 100), bool)
    mask[50, 10:90] = True
    assert outline(mask, (10, 10)) == "M1 5h8M1 6h8M1 5v1M9 5v1"
    assert outline(np.zeros((4, 4), bool), (4, 4)) == ""
