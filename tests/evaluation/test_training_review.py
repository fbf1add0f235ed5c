"""Whether a defective image among the good training images is put before a person."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from decodiff_pipeline.evaluation.training_review import (
    conformal_p_value,
    review_training_images,
)

if TYPE_CHECKING:
    from tests.evaluation.conftest import World


def reviewed(world: World, **options: object) -> dict[str, list[dict[str, object]]]:
    world.config = world.config.model_copy(update=options)
    store = world.scored()
    world.model.calls.clear()
    review = review_training_images(world.model, world.manifest, world.images, store, world.config)
    assert json.loads(json.dumps(review, allow_nan=False)) == review
    return review


def contaminate(world: World, category: str) -> str:
    """Adds a defective image to the good training images of a category; returns its path."""
    world.add(category, "train", "defective", 1)
    world.rows[-1]["label"] = "good"
    return str(world.rows[-1]["path"])


def test_a_defective_training_image_comes_first(plate: World) -> None:
    defect = contaminate(plate, "plate")
    plate.add("plate", "train", "good", 4)
    listed = reviewed(plate, review_images=3)["plate"]
    assert listed[0]["path"] == defect
    assert len(listed) == 3
    scores = [entry["score"] for entry in listed]
    assert scores == sorted(scores, reverse=True)
    assert listed[0]["p_value"] == 1 / 6  # of 5 calibration images none scores as high
    assert listed[0]["reason_hint"] == "more unusual than 5 of 5 calibration images"
    assert listed[0]["sha256"] == plate.manifest.set_index("path").loc[defect, "sha256"]
    assert sum(plate.model.calls) == 11  # the good training images and no others
    assert max(plate.model.calls) == plate.config.batch_size


def test_p_values_are_the_categorys_own_and_ties_count() -> None:
    calibration = np.array([0.1, 0.2, 0.2, 0.9], np.float32)
    values = [conformal_p_value(score, calibration) for score in (1.0, 0.9, np.float32(0.2), 0.0)]
    assert values == [1 / 5, 2 / 5, 4 / 5, 1]
    assert conformal_p_value(1.0, calibration[:0]) is None


def test_other_categories_lend_no_calibration_images(plate: World) -> None:
    plate.add("spare", "train", "good", 2).add("spare", "test", "good", 1)
    listed = reviewed(plate)["spare"]
    assert [entry["p_value"] for entry in listed] == [None, None]
    assert [entry["reason_hint"] for entry in listed] == ["", ""]


def test_an_image_of_another_size_is_hinted_at(plate: World) -> None:
    rows = plate.manifest.assign(width=64, height=64, mode="L")
    rows.loc[rows.index[2], ["width", "mode"]] = [80, "RGB"]
    store = plate.scored()
    listed = review_training_images(plate.model, rows, plate.images, store, plate.config)["plate"]
    hints = {entry["path"]: entry["reason_hint"] for entry in listed}
    assert "80x64 RGB, where most are 64x64 L" in hints.pop(rows["path"].iloc[2])
    assert not any("most are" in hint for hint in hints.values())


def test_zero_scores_nothing_and_a_limit_always_chooses_the_same(plate: World) -> None:
    assert reviewed(plate, review_images=0) == {}
    assert plate.model.calls == []
    listed = reviewed(plate, review_images=12, review_limit=4)["plate"]
    assert sum(plate.model.calls) == 4
    assert {entry["sha256"] for entry in listed} == {f"{number:064d}" for number in range(4)}
