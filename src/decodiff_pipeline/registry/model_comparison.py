"""What the verdict on a new version follows from: the challenger beside others, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from decodiff_pipeline.evaluation import record
from decodiff_pipeline.evaluation.baselines import error_maps
from decodiff_pipeline.evaluation.protocols import labelled_inside
from decodiff_pipeline.metrics.binned import binned_metrics
from decodiff_pipeline.metrics.bootstrap import Sample, mean_paired_differences
from decodiff_pipeline.metrics.exact import image_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.regions import Region
    from decodiff_pipeline.evaluation.config import EvaluationConfig
    from decodiff_pipeline.registry.config import PromotionConfig
    from decodiff_pipeline.serving.serving_check import ServingResult

Samples = dict[str, Sample]
RECALL = "recall"  # of defective test images, at the threshold that is served


@dataclass(frozen=True)
class PairedDifference:
    """A difference of two models on the same images."""

    value: float  # of the challenger
    other: float  # of the other model
    difference: float  # challenger less the other
    low: float  # lower end of its bootstrap interval
    high: float  # upper end of it


@dataclass(frozen=True)
class ModelComparison:
    """The challenger beside another model: by category and metric, and by metric in the mean."""

    categories: Mapping[str, Mapping[str, PairedDifference]]
    mean: Mapping[str, PairedDifference]


@dataclass(frozen=True)
class FalsePositives:
    """What the threshold of a category did on good test images."""

    flagged: int  # good test images at or above the threshold
    good: int  # good test images
    nominal: float  # expected share of flagged ones, at most
    n_calibration: int  # images that the threshold was fitted to


@dataclass(frozen=True)
class ThresholdFit:
    """What the threshold of a category was fitted to."""

    n_calibration: int  # images that the threshold was fitted to
    # expected share of good images at or above it, at most; ``None`` without one
    nominal: float | None
    target: float | None  # rate that was asked for; ``None`` where the version does not say


@dataclass(frozen=True)
class GateInputs:
    """Everything that the verdict follows from."""

    serving: ServingResult  # from the fresh process
    # of the challenger, by category
    metrics: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    # of the challenger, by category
    thresholds: Mapping[str, ThresholdFit] = field(default_factory=dict)
    # by category; where there is no threshold or no good image, absent
    false_positives: Mapping[str, FalsePositives] = field(default_factory=dict)
    baseline: ModelComparison | None = None  # the challenger beside the PCA
    # the challenger beside the champion; ``None`` where there is none to compare with
    champion: ModelComparison | None = None
    champion_error: str | None = None  # why the champion there is cannot be loaded, as a sentence
    lost: tuple[str, ...] = ()  # categories of the champion that the challenger does not know
    rolled_back: str | None = None  # why this version was rolled back once


def samples_of(tests: pd.DataFrame, *, pixels: bool) -> Samples:
    """The scored test images of each category, with their pixels where these are wanted.

    Args:
        tests: Rows of an evaluation's record.
        pixels: Whether a gate is about pixels.
    """
    samples = {}
    for category, rows in record.certain(tests).sort_values("path").groupby("category", sort=True):
        sample = record.sample(rows)
        samples[str(category)] = sample if pixels else replace(sample, histograms=None)
    return samples


def pca_samples(
    tests: pd.DataFrame,
    manifest: pd.DataFrame,
    images: ImageFolder,
    categories: set[str],
    regions: Mapping[str, Region],
) -> Samples:
    """The same test images as the PCA scores them, in the same order.

    Args:
        tests: Rows of an evaluation's record, which may hold these scores.
        categories: Those that are judged; one with too few good images to fit is left out.
        regions: Category → what of its images counts; all where it is not in there.
    """
    samples: Samples = {}
    if record.PCA_SCORE in tests:
        scored = record.certain(tests).dropna(subset=record.PCA_SCORE).sort_values("path")
        for category, rows in scored.groupby("category", sort=True):
            defective = (rows["label"] == "defective").to_numpy()
            samples[str(category)] = Sample(rows[record.PCA_SCORE].to_numpy(), defective)
        return samples
    judged = manifest[manifest["category"].isin(categories)].sort_values("path")
    judged = labelled_inside(judged, images, regions)
    for category, rows in judged.groupby("category", sort=True):
        found = error_maps(rows, images, regions.get(str(category)))
        if found is not None:
            measured, maps = found
            defective = (measured["label"] == "defective").to_numpy()
            samples[str(category)] = Sample(maps.max((1, 2)), defective)
    return samples


def metrics_of(sample: Sample, config: EvaluationConfig) -> dict[str, float | None]:
    """Image metrics, and those of pixels where the sample has them; ``None`` where unmeasurable."""
    metrics = image_metrics(sample.scores, sample.defective)
    if sample.histograms is not None:
        pixels = binned_metrics(sample.histograms, limit=config.aupro_limit)
        metrics |= {name: float(value) for name, value in pixels.items() if np.isfinite(value)}
    return metrics


def compare(
    ours: Samples, theirs: Samples, config: PromotionConfig, evaluation: EvaluationConfig
) -> ModelComparison:
    """Paired differences in every category that both have, and of the mean over these.

    Args:
        ours: Of the challenger.
        theirs: Of the other model, the same images in the same order.
    """
    common = sorted(set(ours) & set(theirs))
    options: dict[str, Any] = {
        "resamples": config.resamples,
        "confidence": config.confidence,
        "limit": evaluation.aupro_limit,
    }

    def paired(names: list[str]) -> dict[str, PairedDifference]:
        one, other = ([side[name] for name in names] for side in (ours, theirs))
        found = mean_paired_differences(one, other, **options)
        means = [_mean([metrics_of(s, evaluation) for s in side]) for side in (one, other)]
        return {
            metric: PairedDifference(
                means[0][metric], means[1][metric], each.difference, each.low, each.high
            )
            for metric, each in found.items()
            if each is not None
        }

    return ModelComparison(
        {name: paired([name]) for name in common}, paired(common) if common else {}
    )


def false_positives(
    tests: pd.DataFrame, thresholds: Mapping[str, Any]
) -> dict[str, FalsePositives]:
    """What each category's threshold did on its good test images.

    Args:
        tests: Rows of an evaluation's record.
        thresholds: As they were registered with the version.
    """
    found = {}
    good = tests[tests["label"] == "good"]
    for category, rows in good.groupby("category", sort=True):
        entry = thresholds["categories"].get(category, {})
        nominal = entry.get("promised_false_positive_rate")
        if entry.get("threshold") is None or nominal is None:
            continue
        flagged = int((rows["score"].to_numpy(np.float64) >= entry["threshold"]).sum())
        found[str(category)] = FalsePositives(
            flagged, len(rows), float(nominal), int(entry.get("n_calibration", 0))
        )
    return found


def recalls(tests: pd.DataFrame, thresholds: Mapping[str, Any]) -> dict[str, float]:
    """Share of the defective test images that each category's threshold finds.

    Arguments are as for `false_positives`. A category without a threshold or without defective
    test images is absent.
    """
    found = {}
    for category, rows in tests[tests["label"] == "defective"].groupby("category", sort=True):
        threshold = thresholds["categories"].get(category, {}).get("threshold")
        if threshold is not None:
            found[str(category)] = float((rows["score"].to_numpy(np.float64) >= threshold).mean())
    return found


def threshold_fits(thresholds: Mapping[str, Any]) -> dict[str, ThresholdFit]:
    """How many images each category's threshold was fitted to, and for which rate."""
    return {
        category: ThresholdFit(
            int(entry.get("n_calibration", 0)),
            entry.get("promised_false_positive_rate"),
            thresholds.get("false_positive_rate"),
        )
        for category, entry in thresholds["categories"].items()
    }


def _mean(rows: list[dict[str, float | None]]) -> dict[str, float]:
    """Mean of each metric over the rows that have it."""
    frame = pd.DataFrame(rows, dtype=float)
    return {str(name): float(value) for name, value in frame.mean().items()}
