"""What metrics.json says of a data set whose answers are known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from decodiff_pipeline.errors import DataError
from decodiff_pipeline.evaluation.assessment import assess
from decodiff_pipeline.evaluation.baselines import pca_baseline
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.evaluation.thresholds import fit_thresholds
from decodiff_pipeline.metrics.exact import IMAGE_METRICS, PIXEL_METRICS

if TYPE_CHECKING:
    from tests.evaluation.conftest import World


def assessed(world: World) -> dict[str, Any]:
    store = world.scored()
    thresholds = fit_thresholds(store, world.config.false_positive_rate)
    metrics = assess(
        store, world.manifest, world.images, thresholds, world.config, baseline={"pca": {}}
    ).metrics
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    return metrics


def test_a_perfect_model_gets_perfect_marks(plate: World) -> None:
    metrics = assessed(plate)
    row = metrics["categories"]["plate"]
    for name in (*IMAGE_METRICS, *PIXEL_METRICS):
        assert row[name] == pytest.approx(1), name
        assert metrics["mean"][name] == pytest.approx(1), name
    assert (row["n_good"], row["n_defective"], row["n_masks"]) == (6, 4, 4)
    assert row["false_negative_rate"] == 0
    assert metrics["protocol"] == "strict"
    assert row["cropped_defects"] is None
    assert metrics["cropped_share"] == 0


def test_metrics_are_of_the_test_images_alone(plate: World) -> None:
    # A good calibration image brighter than any defect must change nothing but the threshold.
    path = plate.images.path / plate.manifest.query("split == 'calibration'")["path"].iloc[0]
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save(path)
    row = assessed(plate)["categories"]["plate"]
    assert row["image_auroc"] == 1
    assert row["threshold"] > 1
    assert (row["false_positive_rate"], row["false_negative_rate"]) == (0, 1)


def test_uncertain_images_are_reported_apart(plate: World) -> None:
    row = assessed(plate)["categories"]["plate"]
    uncertain = row["uncertain"]["uncertain"]
    assert uncertain == {"n": 3, "flagged_share": 1.0, "image_auroc_against_good": 1.0}
    assert row["n_good"] + row["n_defective"] == 10


def test_only_images_with_a_known_truth_enter_pixel_metrics(plate: World) -> None:
    plate.add("plate", "test", "defective", 3)  # without masks
    row = assessed(plate)["categories"]["plate"]
    assert (row["n_defective"], row["n_masks"]) == (7, 4)
    # Counted as defect-free, their bright squares would cost precision.
    assert row["pixel_ap"] == pytest.approx(1)


def test_pixel_metrics_use_the_masks_of_their_own_images(world: World) -> None:
    world.add("plate", "test", "good", 2).add("plate", "test", "defective", 3, mask=True)
    moved = world.images.path / str(world.manifest["mask_path"].iloc[-1])
    Image.fromarray(np.roll(np.asarray(Image.open(moved)), 9, axis=1)).save(moved)
    row = assessed(world)["categories"]["plate"]
    index, maps = world.store.index(), world.store.maps("plate")
    truth = [
        np.zeros((64, 64)) if pd.isna(path) else np.asarray(Image.open(world.images.path / path))
        for path in world.manifest["mask_path"]
    ]
    flat = np.concatenate([maps[row].ravel() for row in index["row"]])
    labels = np.concatenate([mask.ravel() > 0 for mask in truth])
    assert row["pixel_auroc"] == pytest.approx(roc_auc_score(labels, flat), abs=1e-9)
    assert row["pixel_ap"] == pytest.approx(average_precision_score(labels, flat), abs=1e-9)


def test_strict_keeps_the_label_of_the_whole_image_and_tells_what_the_crop_costs(
    cropped: World,
) -> None:
    metrics = assessed(cropped)
    row = metrics["categories"]["plate"]
    assert (row["n_good"], row["n_defective"], row["n_relabelled"]) == (2, 4, 0)
    # The crop keeps the columns 32/3 … 160/3, of the second mask's 50 … 59 so 50, 51, 52.
    outside = 16 * 8 + 16 * 7
    assert row["cropped_defects"]["pixel_share"] == outside / (outside + 16 * 3 + 2 * 16 * 16)
    assert row["cropped_defects"]["n_images"] == 1
    assert metrics["cropped_share"] == pytest.approx(5 / 9)


def test_released_calls_an_image_good_whose_defect_is_cropped_off(cropped: World) -> None:
    cropped.config = EvaluationConfig(batch_size=4, protocol="released")
    metrics = assessed(cropped)
    row = metrics["categories"]["plate"]
    assert (row["n_good"], row["n_defective"], row["n_relabelled"]) == (3, 3, 1)
    assert row["cropped_defects"]["n_images"] == 1
    assert metrics["protocol"] == "released"
    # Its bright square is still in the crop: a false alarm now.
    assert row["image_auroc"] < 1
    baseline = pca_baseline(
        cropped.manifest, cropped.images, cropped.model.preprocessing, cropped.config
    )
    assert baseline.metrics["plate"]["image_auroc"] < 1


def test_released_keeps_the_label_of_an_image_without_a_mask(world: World) -> None:
    world.add("plate", "test", "good", 2).add("plate", "test", "defective", 2)
    world.config = EvaluationConfig(protocol="released")
    row = assessed(world)["categories"]["plate"]
    assert (row["n_good"], row["n_defective"], row["pixel_ap"]) == (2, 2, None)


def test_a_baseline_by_another_protocol_is_refused(plate: World) -> None:
    store = plate.scored()
    given = (store, plate.manifest, plate.images, fit_thresholds(store, 0.05), plate.config)
    with pytest.raises(DataError, match=r"baseline_metrics.*'released'.*'strict'.*--from-nodes"):
        assess(*given, baseline={"pca": {}, "protocol": "released"})
