"""Bootstrap confidence intervals of metrics, and paired tests of two models.

Images are drawn with replacement, stratified into good and defective ones, since their numbers
are fixed by the data set. An image is drawn with all its pixels, since they are not independent.
Image metrics are exact, pixel metrics binned.
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
MIN_MEASURED = 0.5  # minimum share of the resamples that have the metric
EQUAL = 1e-12
Interval = tuple[float, float]
METRICS = (*IMAGE_METRICS, *PIXEL_METRICS)
MIN_IMAGES = 2  # per stratum; resamples of one image do not vary
MAX_GROUPS = 100  # jackknife groups per stratum
BLOCK_ELEMENTS = 1 << 21  # resamples · images per block
KINDS = (False, True)  # strata: good, defective


@dataclass(frozen=True)
class Sample:
    """The test images of one category with the scores of one model.

    Attributes:
        scores: Float (N,), without NaN.
        defective: bool (N,).
        histograms: Histograms of the same N images (see `Histograms.placed` for images without a
            known mask), or ``None`` without pixel metrics.
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
        """Whether there are two images of each stratum that the metric needs."""
        if metric in IMAGE_METRICS:
            count = int(np.count_nonzero(self.defective))
            return min(count, len(self.defective) - count) >= MIN_IMAGES
        if self.histograms is None:
            return False
        return int(np.count_nonzero(self.histograms.regions)) >= MIN_IMAGES


@dataclass(frozen=True)
class Resampled:
    """A metric's mean over the categories that have it.

    Attributes:
        figure: On the original sample; NaN if no category has the metric.
        values: On the resamples, (R,).
        left_out: Jackknife values of a category, (G,) for each category and stratum: the metric
            without one group of images.
    """

    figure: float
    values: np.ndarray
    left_out: list[np.ndarray]


def resample(
    samples: Sequence[Sample], *, resamples: int, seed: int, limit: float
) -> dict[str, Resampled]:
    """Compute the metrics on bootstrap resamples of the images of each category.

    Args:
        samples: One per category. Samples with the same labels get the same resamples, so that
            models can be compared in pairs.
        resamples: R.

    Returns:
        A result for each of `METRICS`.
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
        name: np.mean(values, axis=0) if values else np.full(1 + resamples, np.nan)
        for name, values in columns.items()
    }
    return {
        name: Resampled(float(mean[0]), mean[1:], left_out[name]) for name, mean in means.items()
    }


def _drawn(defective: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Multiplicity of each image in each resample, uint16 (R, N)."""
    weights = np.empty((resamples, len(defective)), np.uint16)
    for kind in KINDS:
        images = np.flatnonzero(defective == kind)
        n = len(images)
        for block in _blocks(resamples, n) if n else ():
            count = len(range(*block.indices(resamples)))
            drawn = rng.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=count * n)
            weights[block, images] = counts.reshape(count, n)
    return weights


def _blocks(resamples: int, images: int) -> Iterator[slice]:
    """Blocks of resamples, so that the memory does not grow with the number of images."""
    step = max(1, BLOCK_ELEMENTS // max(1, images))
    for start in range(0, resamples, step):
        yield slice(start, start + step)


def _without_groups(defective: np.ndarray) -> Iterator[np.ndarray]:
    """Jackknife weights (G, N) for each stratum: each row leaves out one group of its images."""
    for kind in KINDS:
        images = np.flatnonzero(defective == kind)
        groups = min(len(images), MAX_GROUPS)
        if groups >= MIN_IMAGES:
            weights = np.ones((groups, len(defective)), np.uint16)
            weights[np.arange(len(images)) % groups, images] = 0
            yield weights


def _measure(sample: Sample, weights: np.ndarray, limit: float) -> dict[str, np.ndarray]:
    """The metrics that a category has, (R,) each, for weights (R, N)."""
    scores, defective = np.asarray(sample.scores), np.asarray(sample.defective, bool)
    parts = [
        _image_metrics(scores, defective, weights[block])
        for block in _blocks(len(weights), len(scores))
    ]
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if sample.histograms is not None:
        values |= binned_metrics(sample.histograms, weights, limit)
    return values


def _image_metrics(
    scores: np.ndarray, defective: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """`exact.image_metrics` of each resample; the scores are sorted once."""
    if not defective.any() or defective.all():
        return {}
    order = np.argsort(scores)
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    ordered, kind = weights[:, order], defective[order]
    bad = np.add.reduceat(ordered * kind, starts, axis=1)
    good = np.add.reduceat(ordered * ~kind, starts, axis=1)
    total = good.sum(-1, keepdims=True)
    figures = ranking(bad, total - good.cumsum(-1), good, total)
    return dict(zip(IMAGE_METRICS, figures, strict=True))


@dataclass(frozen=True)
class Difference:
    """The paired difference of a challenger and a champion on the same images.

    Attributes:
        difference: Challenger minus champion, on the original sample.
        low: Lower end of the percentile interval of the difference.
        high: Upper end.
        p_value: Two-sided, in (0, 1].
        better: Whether the challenger is significantly better (``True``) or worse (``False``);
            ``None`` if the difference is not significant.
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

    Percentile intervals cover too little: the best F1 of a resample is biased upwards, and
    metrics near 1 are skewed. BCa (bias-corrected and accelerated) corrects for both. The
    categories are fixed; their images are drawn independently. A category with one image in a
    stratum, or whose resamples are all equal, adds its value and no variance.

    Source: Efron, "Better Bootstrap Confidence Intervals", JASA 1987.

    Args:
        samples: One per category.
        resamples: Number of resamples.
        confidence: Nominal coverage, in (0, 1).
        seed: Seed of the resamples.

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
    """Paired bootstrap test of two models on the same images, for the mean over categories.

    Args:
        challengers: The challenger's samples, one per category.
        champions: The champion's, of the same images in the same order.
        resamples: Number of resamples; the p-value is at least 2 / (resamples + 1).
        confidence: A difference is significant if the p-value is at most 1 - confidence.

    Returns:
        The difference for each metric; ``None`` if one of the models does not have the metric,
        or a stratum has fewer than two images.

    Raises:
        ValueError: The labels of the two differ.
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
    z = bias + ndtri(np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
    denominator = np.maximum(1 - _acceleration(measured.left_out) * z, EQUAL)
    low, high = np.quantile(values, ndtr(bias + z / denominator))
    return float(low), float(high)


def _acceleration(left_out: Sequence[np.ndarray]) -> float:
    """BCa's acceleration constant, by a jackknife within each stratum."""
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
