"""The evaluation record: scores, labels and pixel histograms of each image.

It takes a few kilobytes per image instead of its map, and allows a later model to be compared with
this one: all metrics (pixel metrics binned) and the bootstrap can be computed from it.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from decodiff_pipeline.data.images import read_bytes
from decodiff_pipeline.data.provenance import code_sha256, data_digest
from decodiff_pipeline.deco.digests import sha256_of
from decodiff_pipeline.evaluation.category_evaluator import CERTAIN
from decodiff_pipeline.metrics import binned
from decodiff_pipeline.metrics.bootstrap import Sample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.evaluation.config import EvaluationConfig

IDENTITY = "evaluation"  # key in a record's ``attrs``, which Parquet keeps
PCA_SCORE = "pca_score"  # column of the records of the evaluation pipeline
SCORING_CODE = ("data", "deco", "evaluation", "metrics")  # packages whose code scores depend on
COLUMNS = (
    "category", "split", "label", "defect_type", "path", "sha256", "score", "near_duplicate",
)  # fmt: skip


def make_record(
    index: pd.DataFrame, near_duplicate: pd.Series, histograms: Sequence[pd.DataFrame]
) -> pd.DataFrame:
    """Make the record of an evaluation.

    Args:
        index: Index of the predictions, labelled by the protocol.
        near_duplicate: bool, with the labels of ``index``.
        histograms: For each category, `binned.pack` of the images with known pixel labels.

    Returns:
        A row per image with `COLUMNS` and those of `binned.pack`, which are missing for images
        without known pixel labels.
    """
    record = index.assign(near_duplicate=near_duplicate)[list(COLUMNS)]
    bins = pd.concat(histograms) if histograms else pd.DataFrame()
    return record.join(bins)


def identity(
    about: Mapping[str, Any], manifest: pd.DataFrame, images: ImageFolder, config: EvaluationConfig
) -> dict[str, Any]:
    """Everything that determines the metrics of the test images, JSON-ready.

    Two records with the same identity have the same metrics.

    Args:
        about: Facts about the model, as `scoring.describe` returns them.
        manifest: The validated manifest, of the categories that the model knows.

    Raises:
        ImageError: A mask cannot be read.
    """
    tests = manifest[manifest["split"] == "test"]
    masks = [
        f"{path} {hashlib.sha256(read_bytes(images.path / path, root=images.path)).hexdigest()}"
        for path in tests["mask_path"].dropna()
    ]
    facts = {
        "model": {key: value for key, value in about.items() if key != "images_sha256"},
        "data": data_digest(manifest),
        "masks": sha256_of(sorted(masks)),
        "protocol": config.protocol,
        "resolution": config.resolution,
        "code": code_sha256(*SCORING_CODE),
    }
    return json.loads(json.dumps(facts))


def certain(record: pd.DataFrame, category: str | None = None) -> pd.DataFrame:
    """The good and defective test images, of one category or of all."""
    labelled = (record["split"] == "test") & record["label"].isin(CERTAIN)
    return record[labelled if category is None else labelled & (record["category"] == category)]


def sample(rows: pd.DataFrame) -> Sample:
    """The input of the bootstrap.

    Args:
        rows: Rows of one category, as `certain` returns them.
    """
    known = rows["bins"].notna().to_numpy() if "bins" in rows else np.zeros(len(rows), bool)
    histograms = None
    if known.any():
        histograms = binned.unpack(rows[known]).placed(np.flatnonzero(known), len(rows))
    return Sample(
        scores=rows["score"].to_numpy(np.float32),
        defective=(rows["label"] == "defective").to_numpy(),
        histograms=histograms,
    )
