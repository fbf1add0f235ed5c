"""Everything that is measured of a challenger before a gate is asked."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.registry import model_comparison
from decodiff_pipeline.registry.model_comparison import RECALL, GateInputs
from decodiff_pipeline.registry.version_evaluation import (
    ChangedFiles,
    EvaluationContext,
    VersionEvaluation,
    evaluate_version,
)
from decodiff_pipeline.registry.versions import ROLLED_BACK
from decodiff_pipeline.serving.serving_check import ServingResult, check_serving, sample_rows

if TYPE_CHECKING:
    from decodiff_pipeline.registry.versions import Version


def evaluate_challenger(
    challenger: Version, champion: Version | None, context: EvaluationContext, notes: list[str]
) -> GateInputs:
    """Evaluate both versions, one after the other so that one is in memory, and compare them.

    Args:
        challenger: The version to judge.
        champion: The one it would replace, if there is one.
        context: Data and limits.
        notes: Sentences are added that explain what the numbers do not.

    Raises:
        StoreError: MLflow's artifact store does not answer, or the disk is full.
    """
    config, evaluation = context.config, context.evaluation
    try:
        ours = evaluate_version(challenger, context)
    except ChangedFiles:
        return GateInputs(ServingResult(files_as_registered=False))
    except ModelError as error:
        return GateInputs(ServingResult(error=str(error)))
    samples = model_comparison.samples_of(ours.tests, pixels=config.needs_pixels())
    pca = model_comparison.pca_samples(ours.tests, context.manifest, context.images, set(samples))
    recalls = model_comparison.recalls(ours.tests, ours.thresholds)
    inputs = GateInputs(
        serving=_served(challenger, ours, context),
        metrics={
            name: {
                **model_comparison.metrics_of(sample, evaluation),
                RECALL: recalls.get(name),
            }
            for name, sample in samples.items()
        },
        thresholds=model_comparison.threshold_fits(ours.thresholds),
        false_positives=model_comparison.false_positives(ours.tests, ours.thresholds),
        baseline=model_comparison.compare(samples, pca, config, evaluation),
        rolled_back=challenger.tags.get(ROLLED_BACK) or None,
    )
    _note_unjudged(ours, set(samples), context, notes)
    if champion is None:
        return inputs
    try:
        theirs = evaluate_version(champion, context)
    except ModelError as error:
        notes.append("whether a category of the champion is lost is not known")
        return dataclasses.replace(inputs, champion_error=str(error))
    new = sorted(set(ours.categories) - set(theirs.categories))
    if new:
        notes.append(f"new with the challenger, so compared with no champion: {', '.join(new)}")
    others = model_comparison.samples_of(theirs.tests, pixels=config.needs_pixels())
    return dataclasses.replace(
        inputs,
        champion=model_comparison.compare(samples, others, config, evaluation),
        lost=tuple(sorted(set(theirs.categories) - set(ours.categories))),
    )


def _served(version: Version, ours: VersionEvaluation, context: EvaluationContext) -> ServingResult:
    limits = context.config.serving
    rows = sample_rows(ours.tests, limits.images)
    if rows.empty:
        return ServingResult(error="there is no test image of its categories to answer")
    serving, scores = check_serving(
        version.uri, version.tags, context.images, rows, limits.timeout_s
    )
    if not scores:
        return serving
    errors = [abs(one - other) for one, other in zip(scores, rows["score"], strict=True)]
    return dataclasses.replace(serving, largest_error=float(max(errors)))


def _note_unjudged(
    ours: VersionEvaluation, measured: set[str], context: EvaluationContext, notes: list[str]
) -> None:
    known, there = set(ours.categories), set(context.manifest["category"])
    for names, why in (
        (there - known, "in the data and unknown to the challenger, so not judged"),
        (known - measured, "known to the challenger and without test images"),
    ):
        if names:
            notes.append(f"{why}: {', '.join(sorted(names))}")
