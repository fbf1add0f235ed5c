"""Lists the good training images with the highest scores, to find mislabelled defects.

A model gives images that it was trained on lower scores than unseen ones, so that p-values are
conservative. A mislabelled defect still ranks among the highest scores of its category.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pandas as pd

from decodiff_pipeline.compute.config import ONE_PROCESS, ComputeConfig
from decodiff_pipeline.data import splits
from decodiff_pipeline.data.layouts.base import GOOD
from decodiff_pipeline.evaluation.predictions import INDEX, PredictionStore
from decodiff_pipeline.evaluation.scoring import score_parts
from decodiff_pipeline.metrics.thresholds import conformal_p_value

if TYPE_CHECKING:
    import numpy as np

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.evaluation.config import EvaluationConfig

UNUSUAL = 0.05
FORMAT = ["width", "height", "mode"]


def review_training_images(
    model: DeCoDiffPipeline,
    manifest: pd.DataFrame,
    images: ImageFolder,
    predictions: PredictionStore,
    config: EvaluationConfig,
    compute: ComputeConfig = ONE_PROCESS,
) -> dict[str, list[dict[str, Any]]]:
    """Score the good training images and list the most unusual of each category.

    Only scores are kept. Of more than ``review_limit`` images of a category, those with the
    smallest digests are scored, which is a reproducible random sample.

    Args:
        predictions: Predictions, for the scores of the calibration images.
        config: ``review_images``, ``review_limit``, batch size and number of reverse steps.

    Returns:
        Category → the highest scores first: ``path``, ``sha256``, ``score``, ``p_value`` and
        ``reason_hint`` (may be empty). Empty if ``review_images`` is 0.

    Raises:
        DecodiffError: As of `scoring.score_parts`.
    """
    if not config.review_images:
        return {}
    rows = manifest[(manifest["split"] == splits.TRAIN) & (manifest["label"] == GOOD)]
    rows = rows.sort_values("sha256").groupby("category").head(config.review_limit or len(rows))
    store = PredictionStore(predictions.path.with_name("training_review"))
    parts = score_parts(
        model, rows, images, store, config, compute, name="reviewing training images", arrays=False
    )
    scored = pd.concat([rows.head(0), *(pd.read_parquet(part / INDEX) for part in parts)])
    shutil.rmtree(store.work_folder, ignore_errors=True)
    index = predictions.index()
    calibration = index[index["split"] == splits.CALIBRATION]
    review = {}
    for category, group in scored.groupby("category", sort=True):
        known = calibration[calibration["category"] == category]["score"].to_numpy()
        review[str(category)] = _highest(group, known, config.review_images)
    return review


def _highest(scored: pd.DataFrame, calibration: np.ndarray, count: int) -> list[dict[str, Any]]:
    highest = scored.sort_values(["score", "path"], ascending=[False, True]).head(count)
    entries = []
    for _, row in highest.iterrows():
        p_value = conformal_p_value(row["score"], calibration)
        entries.append(
            {
                "path": row["path"],
                "sha256": row["sha256"],
                "score": float(row["score"]),
                "p_value": p_value,
                "reason_hint": "; ".join(
                    filter(None, [_rank(row["score"], calibration), _odd_format(row, scored)])
                ),
            }
        )
    return entries


def _rank(score: float, calibration: np.ndarray) -> str:
    """A phrase with the rank among the calibration images if it is in the top 5 %; else empty."""
    below, count = int((calibration < score).sum()), len(calibration)
    if not count or below < (1 - UNUSUAL) * count:
        return ""
    return f"more unusual than {below} of {count} calibration images"


def _odd_format(row: pd.Series, rows: pd.DataFrame) -> str:
    """A phrase with the image's size and mode if more than half of its category have another."""
    if not {*FORMAT} <= {*rows}:
        return ""
    counts = rows[FORMAT].value_counts()
    formats = (tuple(row[name] for name in FORMAT), counts.index[0])
    actual, usual = (f"{width}x{height} {mode}" for width, height, mode in formats)
    rare = actual != usual and counts.iloc[0] > len(rows) / 2
    return f"{actual}, where most are {usual}" if rare else ""
