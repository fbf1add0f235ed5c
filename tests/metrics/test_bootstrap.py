"""Intervals that cover what they promise, and differences that are found where there are any."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from decodiff_pipeline.metrics.binned import binned_metrics, image_histograms
from decodiff_pipeline.metrics.bootstrap import (
    Sample,
    mean_intervals,
    mean_paired_differences,
)
from decodiff_pipeline.metrics.exact import IMAGE_METRICS, PIXEL_METRICS, image_metrics

GOOD, BAD = 30, 20
DEFECTIVE = np.arange(GOOD + BAD) >= GOOD


def scored(
    rng: np.random.Generator, shift: float = 1.5, defective: np.ndarray = DEFECTIVE
) -> Sample:
    """Normal scores, those of defective images higher; the true AUROC is Φ(shift / √2)."""
    return Sample(rng.normal(size=len(defective)) + shift * defective, defective)


def with_pixels(
    rng: np.random.Generator, shift: float, masks: np.ndarray, texture: np.ndarray
) -> Sample:
    """Maps that are a texture and, in the defects, a shift that differs between images."""
    strength = shift + 0.5 * rng.normal(size=(len(masks), 1, 1))
    maps = (texture + masks * strength).round(1).astype(np.float32)  # few bins, so fast
    return Sample(maps.max((1, 2)), masks.any((1, 2)), image_histograms(maps, masks))


def pictures(rng: np.random.Generator, count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Masks with a defect in every second image, and textures."""
    masks = np.zeros((count, 12, 12), bool)
    masks[::2, 3:7, 4:9] = True
    return masks, rng.normal(size=masks.shape)


@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_intervals_cover_the_truth_as_often_as_they_say(shift: float) -> None:
    rng = np.random.default_rng(0)
    truth, repeats = float(ndtr(shift / np.sqrt(2))), 200
    covered = 0
    for repeat in range(repeats):
        found = mean_intervals([scored(rng, shift)], resamples=300, seed=repeat)["image_auroc"]
        assert found is not None
        covered += found[0] <= truth <= found[1]
    assert 0.90 <= covered / repeats <= 0.99


def test_pixel_intervals_know_that_pixels_of_an_image_go_together() -> None:
    rng = np.random.default_rng(1)
    covered, repeats = 0, 100
    masks, texture = pictures(rng, 400)
    truth = binned_metrics(with_pixels(rng, 1.0, masks, texture).histograms)["pixel_auroc"]
    for repeat in range(repeats):
        masks, texture = pictures(rng, 40)
        sample = with_pixels(rng, 1.0, masks, texture)
        found = mean_intervals([sample], resamples=200, seed=repeat)["pixel_auroc"]
        assert found is not None
        covered += found[0] <= truth <= found[1]
    assert 0.88 <= covered / repeats <= 0.99


def test_intervals_hold_the_figure_and_widen_with_the_confidence() -> None:
    rng = np.random.default_rng(2)
    masks, texture = pictures(rng)
    sample = with_pixels(rng, 1.5, masks, texture)
    narrow, wide = (mean_intervals([sample], confidence=confidence) for confidence in (0.5, 0.99))
    figures = image_metrics(sample.scores, sample.defective) | binned_metrics(sample.histograms)
    assert set(wide) == {*IMAGE_METRICS, *PIXEL_METRICS}
    for name, figure in figures.items():
        assert 0 <= wide[name][0] <= narrow[name][0] <= narrow[name][1] <= wide[name][1] <= 1
        assert wide[name][0] <= figure <= wide[name][1]


def test_the_seed_decides_everything() -> None:
    sample = scored(np.random.default_rng(3))
    assert mean_intervals([sample], seed=4) == mean_intervals([sample], seed=4)
    assert mean_intervals([sample], seed=4) != mean_intervals([sample], seed=5)
    other = scored(np.random.default_rng(4))
    assert mean_paired_differences([sample], [other], seed=4) == mean_paired_differences(
        [sample], [other], seed=4
    )


def test_the_mean_of_four_categories_is_twice_as_certain() -> None:
    rng = np.random.default_rng(5)
    samples = [scored(rng) for _ in range(4)]
    widths = [np.ptp(mean_intervals([sample])["image_auroc"]) for sample in samples]
    mean = np.ptp(mean_intervals(samples)["image_auroc"])
    assert mean == pytest.approx(np.sqrt(np.mean(np.square(widths)) / 4), rel=0.15)


def test_a_category_without_the_metric_is_left_out_of_the_mean() -> None:
    sample = scored(np.random.default_rng(6))
    good = Sample(np.arange(5.0), np.zeros(5, bool))
    assert mean_intervals([sample, good]) == mean_intervals([sample])


def few(scores: list[float], defective: list[bool]) -> Sample:
    """Images with maps of a pixel each, the defective ones' a defect."""
    maps = np.array(scores, np.float32).reshape(-1, 1, 1)
    masks = np.array(defective, bool).reshape(-1, 1, 1)
    return Sample(np.array(scores), np.array(defective), image_histograms(maps, masks))


@pytest.mark.parametrize(
    "sample",
    [
        few([], []),
        few([0.1, 0.2, 0.3], [False] * 3),
        few([0.1, 0.2, 0.3], [True] * 3),
        few([0.5], [True]),
        few([0.1, 0.5, 0.2], [False, True, False]),
        few([0.3] * 6, [False, True] * 3),
        few([0.1, 0.1, 0.2, 0.2], [False, False, True, True]),
    ],
    ids=["no image", "no defect", "no good one", "one", "one defect", "constant", "perfect"],
)
def test_where_a_resample_says_nothing_there_is_no_interval(sample: Sample) -> None:
    assert mean_intervals([sample], resamples=50) == dict.fromkeys((*IMAGE_METRICS, *PIXEL_METRICS))


def test_without_masks_there_are_image_intervals_alone() -> None:
    rng = np.random.default_rng(7)
    masks, texture = pictures(rng)
    sample = with_pixels(rng, 1.5, masks, texture)
    nothing = image_histograms(np.empty((0, 4, 4), np.float32), []).placed([], len(masks))
    bare = Sample(sample.scores, sample.defective, nothing)
    found = mean_intervals([bare])
    assert found == mean_intervals([Sample(sample.scores, sample.defective)])
    assert [found[name] for name in PIXEL_METRICS] == [None] * 5
    assert None not in [found[name] for name in IMAGE_METRICS]


def test_a_better_model_is_found_in_both_directions() -> None:
    rng = np.random.default_rng(8)
    masks, texture = pictures(rng, 40)
    weak, strong = (with_pixels(rng, shift, masks, texture) for shift in (0.5, 2.5))
    for name, found in mean_paired_differences([strong], [weak]).items():
        assert found.better is True and found.p_value < 0.01, name
        assert 0 < found.low <= found.difference <= found.high
    for name, found in mean_paired_differences([weak], [strong]).items():
        assert found.better is False, name


def test_equal_models_are_called_different_no_more_often_than_allowed() -> None:
    rng = np.random.default_rng(9)
    decided, repeats = 0, 200
    for repeat in range(repeats):
        common = rng.normal(size=len(DEFECTIVE)) + 1.5 * DEFECTIVE
        ours, theirs = (
            Sample(common + 0.5 * rng.normal(size=len(common)), DEFECTIVE) for _ in range(2)
        )
        found = mean_paired_differences([ours], [theirs], resamples=200, seed=repeat)["image_auroc"]
        decided += found.better is not None
    assert 0 < decided / repeats <= 0.1


def test_the_same_model_has_no_difference() -> None:
    rng = np.random.default_rng(10)
    masks, texture = pictures(rng)
    sample = with_pixels(rng, 1.0, masks, texture)
    for found in mean_paired_differences([sample], [sample]).values():
        assert (found.difference, found.low, found.high) == (0, 0, 0)
        assert found.p_value == 1 and found.better is None


def test_several_categories_together_decide_what_none_does_alone() -> None:
    rng = np.random.default_rng(11)
    pairs = []
    for _ in range(12):
        common = rng.normal(size=len(DEFECTIVE))
        pairs.append([Sample(common + s * DEFECTIVE, DEFECTIVE) for s in (1.4, 1.2)])
    ours, theirs = zip(*pairs, strict=True)
    alone = [mean_paired_differences([a], [b])["image_auroc"].p_value for a, b in pairs]
    together = mean_paired_differences(ours, theirs)["image_auroc"]
    assert together.better is True
    assert together.p_value <= min(alone)


def test_models_of_different_images_are_not_compared() -> None:
    ours, theirs = scored(np.random.default_rng(0)), scored(np.random.default_rng(1))
    with pytest.raises(ValueError, match="same images"):
        mean_paired_differences([ours], [Sample(theirs.scores, ~theirs.defective)])
    with pytest.raises(ValueError, match="50 scores, 50 labels and 1 histograms"):
        Sample(ours.scores, ours.defective, few([0.1], [True]).histograms)
