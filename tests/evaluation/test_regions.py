"""Pixels outside of a category's region are in no metric, label, comparison or picture."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from tests.evaluation.conftest import SIDE, BrightnessModel
from tests.models import small_pipeline

from decodiff_pipeline.deco.regions import Region, with_regions
from decodiff_pipeline.evaluation.assessment import assess
from decodiff_pipeline.evaluation.baselines import pca_baseline
from decodiff_pipeline.evaluation.comparison import EarlierEvaluation, compare
from decodiff_pipeline.evaluation.thresholds import fit_thresholds
from decodiff_pipeline.metrics.binned import binned_metrics, image_histograms, pack, unpack
from decodiff_pipeline.metrics.curves import curves
from decodiff_pipeline.metrics.exact import pixel_metrics
from decodiff_pipeline.metrics.released_aupro import released_pixel_metrics
from decodiff_pipeline.metrics.thresholds import pixel_decisions
from decodiff_pipeline.reporting.report import ReportInput, render_report

if TYPE_CHECKING:
    import pandas as pd
    from tests.evaluation.conftest import World

INSIDE = np.zeros((SIDE, SIDE), bool)
INSIDE[:, :48] = True
REGION = Region.of(INSIDE)


class RegionModel(BrightnessModel):
    """Counts what is in the region of plates alone."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {**self.config, "regions": {"plate": asdict(REGION)}}

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Maps that are 0 outside of the region, and scores of them."""
        output = super().__call__(*arguments, **options)
        output.anomaly_maps = [each * INSIDE for each in output.anomaly_maps]
        output.scores = np.array([each.max() for each in output.anomaly_maps])
        return output


def test_masked_pixels_are_in_no_metric() -> None:
    """The metrics are those of the maps without their masked columns."""
    random = np.random.default_rng(0)
    maps = random.random((4, 20, 30), np.float32)
    masks = [np.zeros((20, 30), bool), None, np.zeros((20, 30), bool), None]
    masks[0][3:8, 2:9] = masks[2][5:19, 10:20] = True
    hidden = np.zeros((20, 30), bool)
    hidden[:, 20:] = True
    masked = [np.ma.masked_array(each, hidden) for each in maps]
    without = [each[:, :20].copy() for each in maps]
    left = [None if mask is None else mask[:, :20] for mask in masks]
    for measure in (pixel_metrics, released_pixel_metrics):
        assert measure(masked, masks) == measure(without, left)
    one, other = (image_histograms(*pair) for pair in ((masked, masks), (without, left)))
    assert binned_metrics(unpack(pack(one))) == binned_metrics(other)
    scores, bad = np.arange(4.0), np.array([1, 0, 1, 0], bool)
    assert curves(masked, masks, scores, bad) == curves(without, left, scores, bad)
    assert pixel_decisions(masked, masks, 0.99) == pixel_decisions(without, left, 0.99)


@pytest.mark.parametrize("protocol", ["strict", "released"])
@pytest.mark.parametrize("resolution", ["model", "native"])
def test_an_evaluation_judges_within_the_region(
    plate: World, protocol: str, resolution: str
) -> None:
    bad = [row for row in plate.rows if row["label"] == "defective"]
    _draw(plate, bad[0], slice(50, 64))  # its only defect is outside
    _draw(plate, bad[1], slice(40, 64))  # half of its defect is
    plate.model = RegionModel()
    changes = {"protocol": protocol, "resolution": resolution}
    plate.config = plate.config.model_copy(update=changes)
    store = plate.scored()
    assert store.regions() == {"plate": REGION}
    thresholds = fit_thresholds(store, 0.2)
    found = assess(store, plate.manifest, plate.images, thresholds, plate.config)
    entry = found.metrics["categories"]["plate"]
    assert (entry["n_good"], entry["n_defective"], entry["n_relabelled"]) == (7, 3, 1)
    assert found.metrics["regions"]["plate"]["share"] == 0.75
    tests = found.record[found.record["bins"].notna()]
    counted = tests["bin_free"].map(sum) + tests["bin_defective"].map(sum)
    assert set(counted) == {48 * 64}
    pca = pca_baseline(
        plate.manifest, plate.images, plate.model.preprocessing, plate.config, {"plate": REGION}
    )
    assert pca.metrics["plate"]["pixel_ap"] is not None

    page = render_report(ReportInput(found.metrics, thresholds, store.index(), store, plate.images))
    assert "Only a region is scored, 75.0 % of each image" in page
    assert page.count('class="counted"') == len(store.index().query("split == 'test'"))
    assert "White dashes: the scored region" in page


def _draw(world: World, row: dict[str, Any], columns: slice) -> None:
    """Put the defect of an image, and its mask, at some columns."""
    pixels, truth = np.full((SIDE, SIDE), 30, np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    pixels[20:36, columns], truth[20:36, columns] = 200, 255
    Image.fromarray(pixels).save(world.images.path / row["path"])
    Image.fromarray(truth).save(world.images.path / row["mask_path"])


def test_a_category_whose_region_was_changed_is_not_compared(plate: World) -> None:
    plate.add("spare", "calibration", "good", 5).add("spare", "test", "good", 3)
    plate.add("spare", "test", "defective", 3, mask=True)

    def assessed() -> tuple[pd.DataFrame, dict[str, Any]]:
        store = plate.scored()
        thresholds = fit_thresholds(store, 0.2)
        found = assess(store, plate.manifest, plate.images, thresholds, plate.config)
        return found.record, found.metrics

    before = assessed()
    plate.model = RegionModel()
    record, metrics = assessed()
    result = compare(record, metrics, EarlierEvaluation("main", *before))
    assert list(result["categories"]) == ["spare"]
    assert result["notes"] == ["plate is not compared: what of its images counts was changed"]
    same = compare(record, metrics, EarlierEvaluation("main", record, metrics))
    assert set(same["categories"]) == {"plate", "spare"}


def test_a_champion_is_judged_within_the_regions_of_its_challenger() -> None:
    champion = small_pipeline(["plate"])
    champion.set_progress_bar_config(disable=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32), np.uint8))
    before = champion(image, "plate")
    with with_regions(champion, {"plate": REGION}):
        (within,) = champion(image, "plate").anomaly_maps
    assert not within[:, 24:].any()
    after = champion(image, "plate")
    assert np.array_equal(before.anomaly_maps, after.anomaly_maps)
