"""Compares the challenger with other models: metrics, paired differences and false positives."""

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
RECALL = "recall"  # of defective test images, at the served threshold


@dataclass(frozen=True)
class PairedDifference:
    """A metric of two models on the same images."""

    value: float  # of the challenger
    other: float  # of the other model
    difference: float  # value minus other
    low: float  # lower limit of the difference's bootstrap interval
    high: float  # upper limit


@dataclass(frozen=True)
class ModelComparison:
    """The paired differences of the challenger and another model."""

    categories: Mapping[str, Mapping[str, PairedDifference]]  # category → metric → difference
    mean: Mapping[str, PairedDifference]  # metric → difference of the mean over categories


@dataclass(frozen=True)
class FalsePositives:
    """False positives of a category's threshold on the test images."""

    flagged: int  # good test images at or above the threshold
    good: int  # good test images
    nominal: float  # nominal false-positive rate
    n_calibration: int  # images to which the threshold was fitted


@dataclass(frozen=True)
class ThresholdFit:
    """Calibration of a category's threshold."""

    n_calibration: int  # images to which the threshold was fitted
    nominal: float | None  # nominal false-positive rate; ``None`` without a threshold
    target: float | None  # configured false-positive rate; ``None`` if not stored


@dataclass(frozen=True)
class GateInputs:
    """The measurements from which the gates are evaluated."""

    serving: ServingResult
    # category → metric of the challenger
    metrics: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    # category → calibration of the challenger's threshold
    thresholds: Mapping[str, ThresholdFit] = field(default_factory=dict)
    # by category; a category without a threshold or good test images is absent
    false_positives: Mapping[str, FalsePositives] = field(default_factory=dict)
    baseline: ModelComparison | None = None  # with the PCA baseline
    champion: ModelComparison | None = None  # with the champion; ``None`` without one
    champion_error: str | None = None  # why the champion cannot be loaded
    lost: tuple[str, ...] = ()  # categories of the champion that the challenger does not know
    rolled_back: str | None = None  # reason of an earlier rollback of this version


def samples_of(tests: pd.DataFrame, *, pixels: bool) -> Samples:
    """The scored test images of each category, in the order of their paths.

    Args:
        tests: Rows of an evaluation record.
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
    """The test images scored by the PCA baseline, in the order of their paths.

    Args:
        tests: Rows of an evaluation record, which may contain the scores of the baseline.
        categories: Categories to score; one with too few good images to fit is omitted.
        regions: Category → inspected region of its images; by default the whole image.
    """
    samples: Samples = {}
    if record.PCA_SCORE in tests:
        scored = record.certain(tests).dropna(subset=record.PCA_SCORE).sort_values("path")
        for category, rows in scored.groupby("category", sort=True):
            defective = (rows["label"] == "defective").to_numpy()
            samples[str(category)] = Sample(rows[record.PCA_SCORE].to_numpy(), defective)
        return samples
    selected = manifest[manifest["category"].isin(categories)].sort_values("path")
    selected = labelled_inside(selected, images, regions)
    for category, rows in selected.groupby("category", sort=True):
        scored_maps = error_maps(rows, images, regions.get(str(category)))
        if scored_maps is not None:
            scored, maps = scored_maps
            defective = (scored["label"] == "defective").to_numpy()
            samples[str(category)] = Sample(maps.max((1, 2)), defective)
    return samples


def metrics_of(sample: Sample, config: EvaluationConfig) -> dict[str, float | None]:
    """Image metrics, ``None`` if undefined, and the defined pixel metrics of a sample's maps."""
    metrics = image_metrics(sample.scores, sample.defective)
    if sample.histograms is not None:
        pixels = binned_metrics(sample.histograms, limit=config.aupro_limit)
        metrics |= {name: float(value) for name, value in pixels.items() if np.isfinite(value)}
    return metrics


def compare(
    ours: Samples, theirs: Samples, config: PromotionConfig, evaluation: EvaluationConfig
) -> ModelComparison:
    """Paired differences in every common category, and of the mean over these categories.

    Args:
        theirs: Samples of the other model, with the same images in the same order.
    """
    common = sorted(set(ours) & set(theirs))
    options: dict[str, Any] = {
        "resamples": config.resamples,
        "confidence": config.confidence,
        "limit": evaluation.aupro_limit,
    }

    def paired_differences(names: list[str]) -> dict[str, PairedDifference]:
        pair = [[samples[name] for name in names] for samples in (ours, theirs)]
        differences = mean_paired_differences(*pair, **options)
        value, other = (_mean([metrics_of(s, evaluation) for s in samples]) for samples in pair)
        return {
            metric: PairedDifference(
                value[metric], other[metric], paired.difference, paired.low, paired.high
            )
            for metric, paired in differences.items()
            if paired is not None
        }

    return ModelComparison(
        {name: paired_differences([name]) for name in common},
        paired_differences(common) if common else {},
    )


def false_positives(
    tests: pd.DataFrame, thresholds: Mapping[str, Any]
) -> dict[str, FalsePositives]:
    """Count the false positives of each category's threshold on its good test images.

    Args:
        tests: Rows of an evaluation record.
        thresholds: Thresholds registered with the version.
    """
    counts = {}
    good = tests[tests["label"] == "good"]
    for category, rows in good.groupby("category", sort=True):
        entry = thresholds["categories"].get(category, {})
        nominal = entry.get("promised_false_positive_rate")
        if entry.get("threshold") is None or nominal is None:
            continue
        flagged = int((rows["score"].to_numpy(np.float64) >= entry["threshold"]).sum())
        counts[str(category)] = FalsePositives(
            flagged, len(rows), float(nominal), int(entry.get("n_calibration", 0))
        )
    return counts


def recalls(tests: pd.DataFrame, thresholds: Mapping[str, Any]) -> dict[str, float]:
    """Share of the defective test images at or above each category's threshold.

    The arguments are those of `false_positives`. A category without a threshold or defective test
    images is absent.
    """
    shares = {}
    for category, rows in tests[tests["label"] == "defective"].groupby("category", sort=True):
        threshold = thresholds["categories"].get(category, {}).get("threshold")
        if threshold is not None:
            shares[str(category)] = float((rows["score"].to_numpy(np.float64) >= threshold).mean())
    return shares


def threshold_fits(thresholds: Mapping[str, Any]) -> dict[str, ThresholdFit]:
    """The calibration of each category's threshold."""
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
