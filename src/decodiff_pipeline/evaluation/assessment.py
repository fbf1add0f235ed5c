"""Evaluates predictions: metrics, intervals, curves and error rates of each category."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from decodiff_pipeline.data.duplicates import duplicate_of, near_duplicate_of
from decodiff_pipeline.deco.digests import sha256_of
from decodiff_pipeline.evaluation import record
from decodiff_pipeline.evaluation.category_evaluator import CategoryEvaluator, defective, scores
from decodiff_pipeline.evaluation.protocols import (
    cropped_defects,
    cropped_share,
    labelled,
    require_same_protocol,
    warn_of_other_sizes,
)
from decodiff_pipeline.metrics import binned, bootstrap
from decodiff_pipeline.metrics.curves import curves
from decodiff_pipeline.metrics.exact import image_metrics
from decodiff_pipeline.metrics.summary import mean_over_categories
from decodiff_pipeline.metrics.thresholds import image_decisions, pixel_decisions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.regions import Region
    from decodiff_pipeline.evaluation.config import EvaluationConfig
    from decodiff_pipeline.evaluation.predictions import PredictionStore
    from decodiff_pipeline.metrics.bootstrap import Sample

THRESHOLD_KEYS = ("threshold", "pixel_threshold", "promised_false_positive_rate")


@dataclass(frozen=True)
class Assessment:
    """The results of an evaluation."""

    metrics: dict[str, Any]  # content of ``metrics.json``; ``None`` for what cannot be measured
    curves: dict[str, Any]  # by category, as `curves.curves` returns them
    record: pd.DataFrame  # a row per image, as `record.make_record` returns it


def assess(
    predictions: PredictionStore,
    manifest: pd.DataFrame,
    images: ImageFolder,
    thresholds: Mapping[str, Any],
    config: EvaluationConfig,
    *,
    baseline: Mapping[str, Any] | None = None,
    synthetic: Mapping[str, Any] | None = None,
    pca_scores: Mapping[str, float] | None = None,
) -> Assessment:
    """Evaluate predictions against the ground truth.

    Args:
        manifest: The validated manifest, for the near-duplicates outside test.
        baseline: As `baselines.measure_baselines` returns it.
        synthetic: By category, as `synthetic_localisation` returns it.
        pca_scores: Path → score of the PCA baseline, for the record.

    Raises:
        DataError: Baselines or synthetic defects were measured by another protocol or at another
            resolution.
    """
    baseline, synthetic = baseline or {}, synthetic or {}
    _require_same_protocols(baseline, synthetic, config)
    geometry, index, regions = predictions.geometry(), predictions.index(), predictions.regions()
    warn_of_other_sizes(geometry, config.protocol)
    by_protocol, evaluators = _by_category(predictions, images, config)
    table = _record(by_protocol, evaluators, predictions, manifest, images, config)
    if pca_scores is not None:
        table[record.PCA_SCORE] = table["path"].map(pca_scores).astype(float)
    samples = {name: record.sample(record.certain(table, name)) for name in evaluators}
    categories = {}
    for name, evaluator in evaluators.items():
        original = index[(index["category"] == name) & (index["split"] == "test")]
        if name in regions:
            labels = manifest.set_index("path")["label"]
            original = original.assign(label=original["path"].map(labels))
        judged = by_protocol.loc[original.index]
        limits = {key: thresholds["categories"].get(name, {}).get(key) for key in THRESHOLD_KEYS}
        categories[name] = {
            **_category(evaluator, limits, samples[name], table["near_duplicate"], config),
            "n_relabelled": int((judged["label"] != original["label"]).sum()),
            "uncertain": _uncertain(judged, limits["threshold"]),
            "cropped_defects": cropped_defects(original, images, geometry),
            "synthetic": synthetic.get(name),
        }
    return Assessment(
        _summary(categories, list(samples.values()), baseline, config)
        | {"cropped_share": cropped_share(geometry, index[index["split"] == "test"])}
        | ({"regions": _region_facts(regions)} if regions else {}),
        {name: _curves(evaluator, config) for name, evaluator in evaluators.items()},
        table,
    )


def _require_same_protocols(
    baseline: Mapping[str, Any], synthetic: Mapping[str, Any], config: EvaluationConfig
) -> None:
    measured = [("baseline_metrics", baseline)]
    measured += [("synthetic_metrics", entry) for entry in synthetic.values()]
    for name, result in measured:
        require_same_protocol(result, name, config.protocol, config.resolution)


def _region_facts(regions: Mapping[str, Region]) -> dict[str, dict[str, Any]]:
    """Digest of each category's region, and its share of the image."""
    return {
        name: {
            "sha256": sha256_of(region.facts()),
            "share": float(region.at((region.width, region.height)).mean()),
        }
        for name, region in regions.items()
    }


def image_record(
    predictions: PredictionStore,
    manifest: pd.DataFrame,
    images: ImageFolder,
    config: EvaluationConfig,
) -> pd.DataFrame:
    """Only the record of an evaluation, as `assess` returns it."""
    by_protocol, evaluators = _by_category(predictions, images, config)
    return _record(by_protocol, evaluators, predictions, manifest, images, config)


def plain_metrics(
    predictions: PredictionStore, images: ImageFolder, config: EvaluationConfig
) -> dict[str, Any]:
    """Only the metrics, without thresholds and intervals.

    Returns:
        ``categories``, each with its metrics and `CategoryEvaluator.counts`, and ``mean``.
    """
    _, evaluators = _by_category(predictions, images, config)
    categories = {name: {**one.metrics(), **one.counts()} for name, one in evaluators.items()}
    return {"categories": categories, "mean": mean_over_categories(categories)}


def _by_category(
    predictions: PredictionStore, images: ImageFolder, config: EvaluationConfig
) -> tuple[pd.DataFrame, dict[str, CategoryEvaluator]]:
    """All images with the protocol's labels, and the evaluator of each category."""
    rows = labelled(predictions.index(), images, predictions.geometry(), config.protocol)
    return rows, {
        name: CategoryEvaluator(name, rows, predictions, images, config)
        for name in sorted(set(rows["category"]))
    }


def _record(
    by_protocol: pd.DataFrame,
    evaluators: Mapping[str, CategoryEvaluator],
    predictions: PredictionStore,
    manifest: pd.DataFrame,
    images: ImageFolder,
    config: EvaluationConfig,
) -> pd.DataFrame:
    duplicates = manifest["path"][near_duplicates(manifest, config.near_duplicate_bits)]
    histograms = [_histograms(evaluator) for evaluator in evaluators.values()]
    table = record.make_record(by_protocol, by_protocol["path"].isin(duplicates), histograms)
    table.attrs[record.IDENTITY] = record.identity(predictions.about(), manifest, images, config)
    return table


def _summary(
    categories: dict[str, Any],
    samples: list[Sample],
    baseline: Mapping[str, Any],
    config: EvaluationConfig,
) -> dict[str, Any]:
    mean = mean_over_categories(categories)
    return {
        "categories": categories,
        "mean": mean | {"intervals": _intervals(samples, config)},
        "baseline": dict(baseline),
        "protocol": config.protocol,
        "resolution": config.resolution,
        "aupro_limit": config.aupro_limit,
        "confidence": config.confidence,
        "resamples": config.resamples,
    }


def _category(
    evaluator: CategoryEvaluator,
    limits: dict[str, float | None],
    sample: Sample,
    near_duplicate: pd.Series,
    config: EvaluationConfig,
) -> dict[str, Any]:
    rows = evaluator.rows
    bad = defective(rows)
    _, maps, masks = evaluator.compared()
    return {
        **evaluator.metrics(),
        "intervals": _intervals([sample], config),
        **evaluator.counts(),
        **limits,
        **image_decisions(scores(rows), bad, limits["threshold"]),
        **pixel_decisions(maps, masks, limits["pixel_threshold"]),
        "defect_types": _defect_types(evaluator),
        "leakage": _leakage(
            evaluator, rows[~near_duplicate[rows.index]], config.near_duplicate_bits
        ),
    }


def _defect_types(evaluator: CategoryEvaluator) -> dict[str, Any]:
    """Metrics of each defect type against all good images; empty for a single type."""
    rows = evaluator.rows
    bad = rows[defective(rows)]
    kinds = sorted(set(bad["defect_type"]))
    if len(kinds) < 2:  # noqa: PLR2004
        return {}
    return {
        str(kind): {
            "n": int((bad["defect_type"] == kind).sum()),
            **evaluator.metrics(rows[~defective(rows) | (rows["defect_type"] == kind)]),
        }
        for kind in kinds
    }


def _leakage(
    evaluator: CategoryEvaluator, unique: pd.DataFrame, bits: int | None
) -> dict[str, Any] | None:
    """Number of test images with a near-duplicate outside test, and the metrics without them.

    ``unique``: rows without a near-duplicate.
    """
    if bits is None:
        return None
    duplicates = defective(evaluator.rows.drop(unique.index))
    return {
        "bits": bits,
        "n_good": int((~duplicates).sum()),
        "n_defective": int(duplicates.sum()),
        "without": evaluator.metrics(unique) if len(duplicates) else None,
    }


def _histograms(evaluator: CategoryEvaluator) -> pd.DataFrame:
    known, maps, masks = evaluator.compared()
    return binned.pack(binned.image_histograms(maps, masks)).set_axis(known.index)


def _curves(evaluator: CategoryEvaluator, config: EvaluationConfig) -> dict[str, Any]:
    _, maps, masks = evaluator.compared()
    rows = evaluator.rows
    return curves(maps, masks, scores(rows), defective(rows), config.aupro_limit)


def _intervals(samples: list[Sample], config: EvaluationConfig) -> dict[str, Any]:
    intervals = bootstrap.mean_intervals(
        samples,
        resamples=config.resamples,
        confidence=config.confidence,
        limit=config.aupro_limit,
    )
    return {name: None if ends is None else list(ends) for name, ends in intervals.items()}


def _uncertain(rows: pd.DataFrame, threshold: float | None) -> dict[str, Any] | None:
    """Scores of the images labelled ``uncertain``, by type; they are in no other metric."""
    uncertain = rows[rows["label"] == "uncertain"]
    if uncertain.empty:
        return None
    good = scores(rows[rows["label"] == "good"])
    result = {}
    for kind, group in uncertain.groupby("defect_type", sort=True):
        both = np.concatenate([good, scores(group)])
        against_good = image_metrics(both, np.arange(len(both)) >= len(good))
        flagged = None if threshold is None else float((scores(group) >= threshold).mean())
        result[str(kind)] = {
            "n": len(group),
            "flagged_share": flagged,
            "image_auroc_against_good": against_good["image_auroc"],
        }
    return result


def near_duplicates(manifest: pd.DataFrame, bits: int | None) -> pd.Series:
    """Which test images have a near-duplicate among the train, val and calibration images.

    A near-duplicate has equal pixels, or is of the same category with a similar difference hash.

    Args:
        manifest: The validated manifest, with the images outside test.
        bits: Number of the hash's 256 bits that may differ; ``None``: there are no near-duplicates.

    Returns:
        Bool, with the manifest's index; False for all images outside test.
    """
    result = pd.Series(False, index=manifest.index)
    if bits is None:
        return result
    result |= duplicate_of(manifest) != ""
    if "dhash" in manifest:
        result |= near_duplicate_of(manifest, bits) != ""
    return result
