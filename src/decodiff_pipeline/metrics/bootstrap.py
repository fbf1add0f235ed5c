"""How far metrics would move on other test images, and whether one model beats another.

Images are drawn with replacement, good and defective ones apart, since how many there are of each
was decided when the data set was made. An image keeps all its pixels together: those of one image
say nothing independent of each other. Image metrics are exact, pixel metrics binned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr, ndtri

from decodiff_pipeline.metrics.binned import Histograms, binned_metrics
from decodiff_pipeline.metrics.exact import AUPRO_LIMIT, IMAGE_METRICS, PIXEL_METRICS, ranking

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RESAMPLES = 1000
CONFIDENCE = 0.95
MIN_MEASURED = 0.5  # share of the resamples that must have the metric
EQUAL = 1e-12
Interval = tuple[float, float]
METRICS = (*IMAGE_METRICS, *PIXEL_METRICS)
MIN_IMAGES = 2  # of a kind; one image drawn from one is always the same
MAX_GROUPS = 100  # of the images of a kind that are left out one group at a time
BLOCK_ELEMENTS = 1 << 21  # resamples · images at once
KINDS = (False, True)  # good, defective


@dataclass(frozen=True)
class Sample:
    """The test images of one category, as one model scored them.

    Attributes:
        scores: Float (N,), without NaN.
        defective: bool (N,).
        histograms: Of the same N images (see `Histograms.placed` where some have no known mask),
            or ``None`` where no pixel metric is wanted.
    """

    scores: np.ndarray
    defective: np.ndarray
    histograms: Histograms | None = None

    def __post_init__(self) -> None:
        rows = len(self.scores) if self.histograms is None else len(self.histograms)
        if not len(self.scores) == len(self.defective) == rows:
            raise ValueError(
                f"{len(self.scores)} scores, {len(self.defective)} labels and {rows} histograms; "
                "give one of each for each image"
            )

    def has_enough(self, metric: str) -> bool:
        """Whether there are two images of each kind that a metric needs."""
        if metric in IMAGE_METRICS:
            found = int(np.count_nonzero(self.defective))
            return min(found, len(self.defective) - found) >= MIN_IMAGES
        if self.histograms is None:
            return False
        return int(np.count_nonzero(self.histograms.regions)) >= MIN_IMAGES


@dataclass(frozen=True)
class Resampled:
    """A metric's mean over the categories that have it.

    Attributes:
        figure: On the images as they are; NaN where no category has the metric.
        values: In the resamples, (R,).
        left_out: Per category and kind (G,), of the category without one group of images each.
    """

    figure: float
    values: np.ndarray
    left_out: list[np.ndarray]


def resample(
    samples: Sequence[Sample], *, resamples: int, seed: int, limit: float
) -> dict[str, Resampled]:
    """Measure resamples of the images of each category.

    Args:
        samples: One a category. Whose ``defective`` are equal get the same resamples.
        resamples: R.

    Returns:
        One for each of `METRICS`.
    """
    columns: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}
    left_out: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}
    for i, sample in enumerate(samples):
        defective = np.asarray(sample.defective, bool)
        groups = list(_without_groups(defective))
        drawn = _drawn(defective, resamples, np.random.default_rng([seed, i]))
        weights = np.vstack([np.ones((1, len(defective)), np.uint16), *groups, drawn])
        ends = np.cumsum([1, *map(len, groups), resamples])
        for name, column in _measure(sample, weights, limit).items():
            if np.isfinite(column[0]):  # the category has the metric
                _, *parts, values, _ = np.split(column, ends)
                columns[name].append(np.r_[column[0], values])
                left_out[name] += parts
    means = {
        name: np.mean(found, axis=0) if found else np.full(1 + resamples, np.nan)
        for name, found in columns.items()
    }
    return {
        name: Resampled(float(mean[0]), mean[1:], left_out[name]) for name, mean in means.items()
    }


def _drawn(defective: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each resample has each image: uint16 (R, N)."""
    weights = np.empty((resamples, len(defective)), np.uint16)
    for kind in KINDS:
        images = np.flatnonzero(defective == kind)
        n = len(images)
        for own in _blocks(resamples, n) if n else ():
            count = len(range(*own.indices(resamples)))
            drawn = rng.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=count * n)
            weights[own, images] = counts.reshape(count, n)
    return weights


def _blocks(resamples: int, images: int) -> Iterator[slice]:
    """Resamples that are measured together, so that memory does not grow with the images."""
    step = max(1, BLOCK_ELEMENTS // max(1, images))
    for start in range(0, resamples, step):
        yield slice(start, start + step)


def _without_groups(defective: np.ndarray) -> Iterator[np.ndarray]:
    """For each kind weights (G, N) that leave out one group of its images each."""
    for kind in KINDS:
        images = np.flatnonzero(defective == kind)
        groups = min(len(images), MAX_GROUPS)
        if groups >= MIN_IMAGES:
            weights = np.ones((groups, len(defective)), np.uint16)
            weights[np.arange(len(images)) % groups, images] = 0
            yield weights


def _measure(sample: Sample, weights: np.ndarray, limit: float) -> dict[str, np.ndarray]:
    """The metrics that a category has, (R,) by weights (R, N)."""
    scores, defective = np.asarray(sample.scores), np.asarray(sample.defective, bool)
    parts = [
        _image_metrics(scores, defective, weights[own])
        for own in _blocks(len(weights), len(scores))
    ]
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if sample.histograms is not None:
        values |= binned_metrics(sample.histograms, weights, limit)
    return values


def _image_metrics(
    scores: np.ndarray, defective: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """`metrics.image_metrics` of each resample; the scores are sorted once for all."""
    if not defective.any() or defective.all():
        return {}
    order = np.argsort(scores)
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    ordered, kind = weights[:, order], defective[order]
    found = np.add.reduceat(ordered * kind, starts, axis=1)
    free = np.add.reduceat(ordered * ~kind, starts, axis=1)
    total = free.sum(-1, keepdims=True)
    figures = ranking(found, total - free.cumsum(-1), free, total)
    return dict(zip(IMAGE_METRICS, figures, strict=True))


@dataclass(frozen=True)
class Difference:
    """What a challenger has over a champion on the same images.

    Attributes:
        difference: Challenger minus champion, on the images as they are.
        low: Lower end of the percentile interval of the difference.
        high: Upper end.
        p_value: Two-sided, in (0, 1].
        better: Whether the challenger is better (``True``) or worse (``False``) at the confidence
            asked for; ``None`` where that is undecided.
    """

    difference: float
    low: float
    high: float
    p_value: float
    better: bool | None


def mean_intervals(
    samples: Sequence[Sample],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    limit: float = AUPRO_LIMIT,
) -> dict[str, Interval | None]:
    """BCa intervals of the mean over the categories that have the metric.

    Plain percentiles cover too little: the best F1 of a resample is mostly above the truth, and
    metrics near 1 are skewed. BCa (bias-corrected and accelerated) corrects for both. The
    categories are fixed; their images are drawn, independently of each other. A category with
    one image of a kind, or one where resamples do not differ, adds its figure and no spread.

    Source: Efron, "Better Bootstrap Confidence Intervals", JASA 1987.

    Args:
        samples: One a category.
        resamples: How many; more make the ends depend less on the seed.
        confidence: Nominal coverage, in (0, 1).
        seed: Of the resamples; the same seed gives the same intervals.

    Returns:
        For each image and pixel metric ``(low, high)``; ``None`` where there is nothing to
        measure, where fewer than two images of a kind are there to draw from, or where no
        resample differs from another: all scores equal, or all defective images above all good
        ones. A bootstrap says nothing of what it has not seen.
    """
    measured = resample(samples, resamples=resamples, seed=seed, limit=limit)
    return {
        name: _interval(measured[name], confidence)
        if any(sample.has_enough(name) for sample in samples)
        else None
        for name in METRICS
    }


def mean_paired_differences(
    challengers: Sequence[Sample],
    champions: Sequence[Sample],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    limit: float = AUPRO_LIMIT,
) -> dict[str, Difference | None]:
    """Whether one model is better than another on the same images, in the mean over categories.

    Args:
        challengers: One model's scores, a sample for each category.
        champions: The other's, of the same images in the same order.
        resamples: See `mean_intervals`; the p-value is at least 2 / (resamples + 1).
        confidence: A difference is decided where the p-value is at most 1 - confidence.

    Returns:
        For each metric the difference; ``None`` where one of the models has no metric, or fewer
        than two images of a kind are there to draw from.

    Raises:
        ValueError: The images are not the same.
    """
    for challenger, champion in zip(challengers, champions, strict=True):
        if not np.array_equal(challenger.defective, champion.defective):
            raise ValueError("the two models were not judged on the same images")
    ours, theirs = (
        resample(samples, resamples=resamples, seed=seed, limit=limit)
        for samples in (challengers, champions)
    )
    pairs = list(zip(challengers, champions, strict=True))
    return {
        name: _difference(ours[name], theirs[name], confidence)
        if any(a.has_enough(name) and b.has_enough(name) for a, b in pairs)
        else None
        for name in METRICS
    }


def _interval(measured: Resampled, confidence: float) -> Interval | None:
    values = measured.values[np.isfinite(measured.values)]
    if len(values) < MIN_MEASURED * len(measured.values) or np.ptp(values) < EQUAL:
        return None
    below = np.count_nonzero(values < measured.figure - EQUAL)
    ties = np.count_nonzero(np.abs(values - measured.figure) <= EQUAL)
    bias = ndtri(np.clip((below + ties / 2) / len(values), 1 / len(values), 1 - 1 / len(values)))
    wanted = bias + ndtri(np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
    slowed = np.maximum(1 - _acceleration(measured.left_out) * wanted, EQUAL)
    corrected = ndtr(bias + wanted / slowed)
    low, high = np.quantile(values, corrected)
    return float(low), float(high)


def _acceleration(left_out: Sequence[np.ndarray]) -> float:
    """How fast the spread changes with the figure, by a jackknife within each kind of images."""
    cubes = squares = 0.0
    for values in left_out:
        measured = values[np.isfinite(values)]
        n = len(measured)
        if n:
            influence = (n - 1) / n * (measured.mean() - measured)
            cubes += float((influence**3).sum())
            squares += float((influence**2).sum())
    return cubes / (6 * squares**1.5) if squares > EQUAL**2 else 0.0


def _difference(ours: Resampled, theirs: Resampled, confidence: float) -> Difference | None:
    figure = ours.figure - theirs.figure
    values = ours.values - theirs.values
    values = values[np.isfinite(values)]
    if not np.isfinite(figure) or not len(values):
        return None
    values = np.where(np.abs(values) < EQUAL, 0, values)
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    tail = min(np.count_nonzero(values <= 0), np.count_nonzero(values >= 0))
    p_value = float(min(1, 2 * (tail + 1) / (len(values) + 1)))
    better = bool(figure > 0) if p_value <= 1 - confidence else None
    return Difference(float(figure), float(low), float(high), p_value, better)
