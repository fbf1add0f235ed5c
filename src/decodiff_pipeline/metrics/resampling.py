"""Metrics of resampled test images: which images a resample has, and what they measure.

Images are drawn with replacement, good and defective ones apart, since how many there are of each
was decided when the data set was made. An image keeps all its pixels together: those of one image
say nothing independent of each other. Image metrics are exact, pixel metrics binned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from decodiff_pipeline.metrics.binned import Histograms, binned_metrics
from decodiff_pipeline.metrics.exact import IMAGE_METRICS, PIXEL_METRICS
from decodiff_pipeline.metrics.ranking import ranking

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

METRICS = (*IMAGE_METRICS, *PIXEL_METRICS)
MIN_IMAGES = 2  # of a kind; one image drawn from one is always the same
MAX_GROUPS = 100  # of the images of a kind that are left out one group at a time
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
        seed: Of the resamples.
        limit: Of ``pixel_aupro``.

    Returns:
        One for each of `METRICS`.
    """
    columns: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}
    left_out: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}
    for i, sample in enumerate(samples):
        defective = np.asarray(sample.defective, bool)
        groups = list(_without_groups(defective))
        drawn = _drawn(defective, resamples, np.random.default_rng([seed, i]))
        weights = np.vstack([np.ones((1, len(defective))), *groups, drawn])
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
    """How often each resample has each image: float64 (R, N)."""
    weights = np.empty((resamples, len(defective)))
    for kind in KINDS:
        images = np.flatnonzero(defective == kind)
        n = len(images)
        if n:
            drawn = rng.integers(0, n, (resamples, n)) + n * np.arange(resamples)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=resamples * n)
            weights[:, images] = counts.reshape(resamples, n)
    return weights


def _without_groups(defective: np.ndarray) -> Iterator[np.ndarray]:
    """For each kind weights (G, N) that leave out one group of its images each."""
    for kind in KINDS:
        images = np.flatnonzero(defective == kind)
        groups = min(len(images), MAX_GROUPS)
        if groups >= MIN_IMAGES:
            weights = np.ones((groups, len(defective)))
            weights[np.arange(len(images)) % groups, images] = 0
            yield weights


def _measure(sample: Sample, weights: np.ndarray, limit: float) -> dict[str, np.ndarray]:
    """The metrics that a category has, (R,) by weights (R, N)."""
    values = _image_metrics(np.asarray(sample.scores), np.asarray(sample.defective, bool), weights)
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
