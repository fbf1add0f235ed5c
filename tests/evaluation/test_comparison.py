"""Is a model better than another? Asked of records as the evaluation writes them."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from decodiff_pipeline.evaluation.comparison import EarlierEvaluation, compare
from decodiff_pipeline.metrics.binned import image_histograms, pack
from decodiff_pipeline.metrics.exact import IMAGE_METRICS, image_metrics

N = 30


def make_record(strength: float, category: str = "plate", seed: int = 0, n: int = N) -> Any:
    """Scores and maps in which defects stand out by some strength; images depend on seed only."""
    rng = np.random.default_rng(seed)
    defective = np.arange(n) % 2 == 1
    noise = rng.normal(size=n)
    maps = rng.random((n, 12, 12), dtype=np.float32)
    masks = [np.zeros((12, 12), bool) if bad else None for bad in defective]
    for mask in masks:
        if mask is not None:
            mask[3:6, 3:6] = True
    maps[defective, 3:6, 3:6] += strength
    frame = pd.DataFrame(
        {
            "category": category,
            "split": "test",
            "label": np.where(defective, "defective", "good"),
            "sha256": [f"{category}{seed}-{i}" for i in range(n)],
            "score": (noise + 2 * strength * defective).astype(np.float32),
        }
    )
    return pd.concat([frame, pack(image_histograms(maps, masks))], axis=1)


def metrics_of(record: pd.DataFrame, **changes: Any) -> dict[str, Any]:
    categories = {
        name: image_metrics(rows["score"].to_numpy(), (rows["label"] == "defective").to_numpy())
        for name, rows in record.groupby("category")
    }
    keys = {"protocol": "strict", "aupro_limit": 0.3, "resamples": 300, "confidence": 0.95}
    return {"categories": categories, "mean": {"image_auroc": 0.5}, **keys, **changes}


def reference(record: pd.DataFrame, **changes: Any) -> EarlierEvaluation:
    """As it comes back from a Parquet file."""
    buffer = io.BytesIO()
    record.to_parquet(buffer)
    return EarlierEvaluation(
        "main (1234567)", pd.read_parquet(buffer), metrics_of(record, **changes)
    )


def test_a_better_model_is_called_better_and_the_other_way_round() -> None:
    weak, strong = make_record(0.2), make_record(1.5)
    found = compare(strong, metrics_of(strong), reference(weak))
    row = found["categories"]["plate"]["metrics"]["image_auroc"]
    expected = (
        metrics_of(strong)["categories"]["plate"]["image_auroc"]
        - metrics_of(weak)["categories"]["plate"]["image_auroc"]
    )
    assert row["difference"] == pytest.approx(expected)
    assert row["low"] <= row["difference"] <= row["high"]
    assert row["verdict"] == "better"
    assert found["categories"]["plate"]["metrics"]["pixel_ap"]["verdict"] == "better"
    assert found["mean"]["metrics"]["pixel_aupro"]["verdict"] == "better"
    assert found["outcome"] == "compared"
    assert not found["notes"]
    json.dumps(found, allow_nan=False)
    back = compare(weak, metrics_of(weak), reference(strong))
    assert back["categories"]["plate"]["metrics"]["image_auroc"]["verdict"] == "worse"


def test_a_model_is_not_better_than_itself() -> None:
    record = make_record(0.5)
    found = compare(record, metrics_of(record), reference(record.sample(frac=1, random_state=1)))
    rows = found["categories"]["plate"]["metrics"]
    assert {row["verdict"] for row in rows.values()} == {"no significant difference"}
    assert all(row["difference"] == 0 for row in rows.values())


def test_a_changed_test_set_is_compared_on_the_common_images() -> None:
    record = make_record(1.0)
    added = make_record(-5.0, seed=1, n=4)
    older = pd.concat([record.drop(index=[0, 1, 2, 3]), added])
    found = compare(record, metrics_of(record), reference(older))
    category = found["categories"]["plate"]
    counts = [category[key] for key in ("n_common", "n_new_only", "n_reference_only")]
    assert counts == [26, 4, 4]
    assert category["metrics"]["image_auroc"]["difference"] == 0
    (note,) = found["notes"]
    assert "the test set has changed" in note
    assert "26 images" in note


def test_equal_files_are_paired_one_with_one() -> None:
    record = make_record(1.0)
    record.loc[2, "sha256"] = record.loc[0, "sha256"]
    found = compare(record, metrics_of(record), reference(record))
    assert found["categories"]["plate"]["n_common"] == N


def test_labels_are_those_of_the_new_evaluation() -> None:
    record = make_record(1.0)
    older = record.assign(label=record["label"].mask(record.index == 1, "good"))
    found = compare(record, metrics_of(record), reference(older))
    assert found["categories"]["plate"]["metrics"]["image_auroc"]["difference"] == 0
    assert "1 images have another label now" in found["notes"][0]


def test_pixels_of_another_size_are_not_compared_but_images_are() -> None:
    record = make_record(1.0)
    halved = record.assign(bin_free=[counts // 2 for counts in record["bin_free"]])
    found = compare(record, metrics_of(record), reference(halved))
    assert set(found["categories"]["plate"]["metrics"]) == set(IMAGE_METRICS)
    assert "other sizes" in found["notes"][0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"protocol": "released"}, "evaluation.protocol 'released', this with 'strict'"),
        ({"resolution": "native"}, "evaluation.resolution 'native', this with 'model'"),
        ({"categories": {"bolt": {}}}, "other categories (bolt)"),
    ],
)
def test_what_cannot_be_compared_is_explained(changes: dict[str, Any], reason: str) -> None:
    record = make_record(1.0)
    found = compare(record, metrics_of(record), reference(record, **changes))
    assert found["outcome"] == "not_compared"
    assert found["categories"] == {}
    assert reason in found["notes"][0]


def test_other_images_of_the_same_categories_are_not_compared() -> None:
    record = make_record(1.0)
    found = compare(record, metrics_of(record), reference(make_record(1.0, seed=5)))
    assert found["outcome"] == "not_compared"
    assert found["notes"] == ["the two have no test image in common"]


def test_without_a_reference_there_is_nothing_but_the_reason() -> None:
    record = make_record(1.0)
    assert compare(record, metrics_of(record), None)["outcome"] == "none"
    absent = EarlierEvaluation("champion", missing="the model decodiff-x has no champion yet")
    found = compare(record, metrics_of(record), absent)
    assert found["outcome"] == "not_compared"
    assert found["notes"] == ["the model decodiff-x has no champion yet"]


def test_figures_alone_give_differences_without_significance() -> None:
    record = make_record(1.0)
    older = metrics_of(record)
    older["categories"]["plate"]["image_auroc"] -= 0.25
    only_metrics = EarlierEvaluation(
        "v1", None, older, missing="v1 has no evaluation_record.parquet"
    )
    found = compare(record, metrics_of(record), only_metrics)
    row = found["categories"]["plate"]["metrics"]["image_auroc"]
    assert row == {"difference": pytest.approx(0.25), "verdict": None}
    assert "not tested" in found["notes"][0]


def test_the_mean_is_over_the_categories_that_both_have() -> None:
    both = make_record(1.0)
    record = pd.concat([both, make_record(1.0, category="bolt")], ignore_index=True)
    found = compare(record, metrics_of(record), reference(both))
    assert found["mean"]["n_categories"] == 1
    assert found["notes"] == ["only this evaluation has the categories bolt"]


def test_categories_without_defects_or_masks_have_what_can_be_compared() -> None:
    record = make_record(1.0)
    good = make_record(1.0, category="good only").query("label == 'good'")
    unmasked = make_record(1.0, category="unmasked")
    for name in ("bins", "bin_free", "bin_defective", "bin_overlap"):
        unmasked[name] = [np.empty(0, unmasked[name][0].dtype)] * N
    unmasked["regions"] = 0
    everything = pd.concat([record, good, unmasked], ignore_index=True)
    found = compare(everything, metrics_of(everything), reference(everything))
    assert found["categories"]["good only"]["metrics"] == {}
    assert set(found["categories"]["unmasked"]["metrics"]) == set(IMAGE_METRICS)
