"""Good training images that the trained model finds most unusual: is there a defect among them?

A model is lenient to what it was trained on, so a defective image that was learnt as good scores
below the same image unseen. It is still among the highest of its kind, which is all that a list
for review needs; its p-value is on the cautious side.
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
    from decodiff_pipeline.evaluation.config import EvaluationConfig
    from decodiff_pipeline.evaluation.predict import AnomalyModel

UNUSUAL = 0.05
FORMAT = ["width", "height", "mode"]


def review_training_images(
    model: AnomalyModel,
    manifest: pd.DataFrame,
    images: ImageFolder,
    predictions: PredictionStore,
    config: EvaluationConfig,
    compute: ComputeConfig = ONE_PROCESS,
) -> dict[str, list[dict[str, Any]]]:
    """Score the good training images and list the most unusual of each category.

    Only scores are kept. Where ``review_limit`` is below the number of a category's images, those
    with the smallest digests are scored: the same ones always, spread like any random choice.

    Args:
        predictions: The scored images, for the scores of the calibration ones.
        config: ``review_images``, ``review_limit``, batch size and number of reverse steps.

    Returns:
        Category → the highest scores first: ``path``, ``sha256``, ``score``, ``p_value`` and
        ``reason_hint``, what there is to say of it or nothing. Empty where ``review_images`` is 0.

    Raises:
        ModelError: The model gives a score that is no number.
        ImageError: An image cannot be read.
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
        review[str(category)] = _listed(group, known, config.review_images)
    return review


def _listed(scored: pd.DataFrame, calibration: np.ndarray, count: int) -> list[dict[str, Any]]:
    """The highest scores of a category; equal ones in the order of their paths."""
    highest = scored.sort_values(["score", "path"], ascending=[False, True]).head(count)
    listed = []
    for _, row in highest.iterrows():
        p_value = conformal_p_value(row["score"], calibration)
        listed.append(
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
    return listed


def _rank(score: float, calibration: np.ndarray) -> str:
    """Where an image stands among the calibration images, if it stands out."""
    below, count = int((calibration < score).sum()), len(calibration)
    if not count or below < (1 - UNUSUAL) * count:
        return ""
    return f"more unusual than {below} of {count} calibration images"


def _odd_format(row: pd.Series, rows: pd.DataFrame) -> str:
    """Size and mode of an image where more than half of its category have another; else empty."""
    if not {*FORMAT} <= {*rows}:
        return ""
    counts = rows[FORMAT].value_counts()
    formats = (tuple(row[name] for name in FORMAT), counts.index[0])
    own, usual = (f"{width}x{height} {mode}" for width, height, mode in formats)
    rare = own != usual and counts.iloc[0] > len(rows) / 2
    return f"{own}, where most are {usual}" if rare else ""
