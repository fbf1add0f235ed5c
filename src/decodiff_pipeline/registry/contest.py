"""Two models and the PCA on the same test images, scored and measured by the same code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from decodiff_pipeline.registry.evidence import Comparison, FalsePositives, Paired

if TYPE_CHECKING:
    from collections.abc import Mapping

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.evaluation.config import EvaluationConfig
    from decodiff_pipeline.evaluation.predictions import PredictionStore
    from decodiff_pipeline.metrics.bootstrap import Sample
    from decodiff_pipeline.registry.config import PromotionConfig

Samples = dict[str, "Sample"]


def score(
    model: DeCoDiffPipeline,
    tests: pd.DataFrame,
    images: ImageFolder,
    store: PredictionStore,
    config: EvaluationConfig,
) -> pd.DataFrame:
    """Score the test images of the categories that a model knows, as it is served.

    Args:
        model: A version's pipeline.
        tests: The manifest's test images.
        images: The raw images.
        store: Where the predictions go.
        config: Batch size; the number of reverse steps is the model's own.

    Returns:
        The store's index.
    """
    from decodiff_pipeline.evaluation.scoring import score_images

    known = tests[tests["category"].isin(model.categories)]
    score_images(
        model,
        known,
        images.of(known, model.bit_depths),
        store,
        config.model_copy(update={"num_inference_steps": None}),
    )
    return store.index()


def samples_of(
    store: PredictionStore, images: ImageFolder, config: EvaluationConfig, *, pixels: bool
) -> Samples:
    """The scored test images of each category, with their pixels where these are wanted.

    Args:
        store: As `score` filled it.
        images: The raw images, for the masks.
        config: Where pixels are measured; the protocol is the strict one whatever it says.
        pixels: Whether a gate is about pixels.
    """
    from decodiff_pipeline.evaluation.category_evaluator import CategoryEvaluator
    from decodiff_pipeline.metrics.binned import image_histograms
    from decodiff_pipeline.metrics.bootstrap import Sample

    strict = config.model_copy(update={"protocol": "strict"})
    index, samples = store.index(), {}
    for category in sorted(set(index["category"])):
        judged = CategoryEvaluator(category, index, store, images, strict)
        rows = _certain(judged.rows)
        if rows.empty:
            continue
        histograms = None
        known, maps, masks = judged.compared(rows)
        if pixels and (known["label"] == "defective").any():
            places = rows.index.get_indexer(known.index)
            histograms = image_histograms(maps, masks).placed(places, len(rows))
        samples[category] = Sample(rows["score"].to_numpy(), _defective(rows), histograms)
    return samples


def pca_samples(manifest: pd.DataFrame, images: ImageFolder, categories: set[str]) -> Samples:
    """The same test images as the PCA scores them, in the same order.

    Args:
        manifest: The validated manifest.
        images: The raw images.
        categories: Those that are judged; one with too few good images to fit is left out.
    """
    from decodiff_pipeline.evaluation import pca_baseline
    from decodiff_pipeline.metrics.bootstrap import Sample

    samples = {}
    judged = manifest[manifest["category"].isin(categories)]
    for category, rows in judged.groupby("category", sort=True):
        fitted = rows[(rows["label"] == "good") & rows["split"].isin(pca_baseline.GOOD_SPLITS)]
        tests = _certain(rows[rows["split"] == "test"])
        if len(fitted) < pca_baseline.MIN_IMAGES or tests.empty:
            continue
        maps = pca_baseline.reconstruction_errors(
            pca_baseline.read_small(images, fitted["path"]),
            pca_baseline.read_small(images, tests["path"]),
        )
        samples[str(category)] = Sample(maps.max((1, 2)), _defective(tests))
    return samples


def metrics_of(sample: Sample, config: EvaluationConfig) -> dict[str, float | None]:
    """Image metrics, and those of pixels where the sample has them; ``None`` where unmeasurable."""
    from decodiff_pipeline.metrics.binned import binned_metrics
    from decodiff_pipeline.metrics.exact import image_metrics

    metrics = image_metrics(sample.scores, sample.defective)
    if sample.histograms is not None:
        pixels = binned_metrics(sample.histograms, limit=config.aupro_limit)
        metrics |= {name: float(value) for name, value in pixels.items() if np.isfinite(value)}
    return metrics


def compare(
    ours: Samples, theirs: Samples, config: PromotionConfig, evaluation: EvaluationConfig
) -> Comparison:
    """Paired differences in every category that both have, and of the mean over these.

    Args:
        ours: Of the challenger.
        theirs: Of the other model, the same images in the same order.
        config: Of the bootstrap.
        evaluation: Limit of AUPRO.
    """
    from decodiff_pipeline.metrics.bootstrap import mean_paired_differences

    common = sorted(set(ours) & set(theirs))
    options: dict[str, Any] = {
        "resamples": config.resamples,
        "confidence": config.confidence,
        "limit": evaluation.aupro_limit,
    }

    def paired(names: list[str]) -> dict[str, Paired]:
        one, other = ([side[name] for name in names] for side in (ours, theirs))
        found = mean_paired_differences(one, other, **options)
        means = [_mean([metrics_of(s, evaluation) for s in side]) for side in (one, other)]
        return {
            metric: Paired(means[0][metric], means[1][metric], each.difference, each.low, each.high)
            for metric, each in found.items()
            if each is not None
        }

    return Comparison({name: paired([name]) for name in common}, paired(common) if common else {})


def false_positives(
    index: pd.DataFrame, thresholds: Mapping[str, Any]
) -> dict[str, FalsePositives]:
    """What each category's threshold did on its good test images.

    Args:
        index: The scored test images.
        thresholds: As they were registered with the version.
    """
    found = {}
    good = index[index["label"] == "good"]
    for category, rows in good.groupby("category", sort=True):
        entry = thresholds["categories"].get(category, {})
        promised = entry.get("promised_false_positive_rate")
        if entry.get("threshold") is None or promised is None:
            continue
        flagged = int((rows["score"].to_numpy(np.float64) >= entry["threshold"]).sum())
        found[str(category)] = FalsePositives(
            flagged, len(rows), float(promised), int(entry.get("n_calibration", 0))
        )
    return found


def _certain(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["label"].isin(["good", "defective"])].sort_values("path")


def _defective(rows: pd.DataFrame) -> np.ndarray:
    return (rows["label"] == "defective").to_numpy()


def _mean(rows: list[dict[str, float | None]]) -> dict[str, float]:
    """Mean of each metric over the rows that have it."""
    frame = pd.DataFrame(rows, dtype=float)
    return {str(name): float(value) for name, value in frame.mean().items()}
