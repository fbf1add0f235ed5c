"""What an evaluation keeps of each image, so that a later model can be compared with this one.

A few kilobytes an image instead of its map: enough for every metric but to the binned pixel
metrics' small error, and for resampling.
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

IDENTITY = "evaluation"  # in a record's ``attrs``, which Parquet keeps
PCA_SCORE = "pca_score"  # a column of the records that the evaluation pipeline makes
SCORING_CODE = ("data", "deco", "evaluation", "metrics")  # packages that decide on a score
COLUMNS = (
    "category", "split", "label", "defect_type", "path", "sha256", "score", "near_duplicate",
)  # fmt: skip


def make_record(
    index: pd.DataFrame, near_duplicate: pd.Series, histograms: Sequence[pd.DataFrame]
) -> pd.DataFrame:
    """The table of an evaluation.

    Args:
        index: Of the predictions, labelled by the protocol.
        near_duplicate: bool, by the index of ``index``.
        histograms: Of each category, `binned.pack` of the images that every pixel's truth is
            known of, with their index.

    Returns:
        A row an image with `COLUMNS` and those of `binned.pack`, which are missing where the
        truth is not known.
    """
    record = index.assign(near_duplicate=near_duplicate)[list(COLUMNS)]
    bins = pd.concat(histograms) if histograms else pd.DataFrame()
    return record.join(bins)


def identity(
    about: Mapping[str, Any], manifest: pd.DataFrame, images: ImageFolder, config: EvaluationConfig
) -> dict[str, Any]:
    """What the figures of the test images follow from, JSON-ready.

    Two records with the same identity hold the same figures.

    Args:
        about: Of the model, as `scoring.describe` returns it.
        manifest: The validated manifest, of the categories that the model knows.

    Raises:
        ImageError: A mask cannot be read.
    """
    tests = manifest[manifest["split"] == "test"]
    masks = [
        f"{path} {hashlib.sha256(read_bytes(images.path / path, root=images.path)).hexdigest()}"
        for path in tests["mask_path"].dropna()
    ]
    found = {
        "model": {key: value for key, value in about.items() if key != "images_sha256"},
        "data": data_digest(manifest),
        "masks": sha256_of(sorted(masks)),
        "protocol": config.protocol,
        "resolution": config.resolution,
        "code": code_sha256(*SCORING_CODE),
    }
    return json.loads(json.dumps(found))


def certain(record: pd.DataFrame, category: str | None = None) -> pd.DataFrame:
    """The test images whose label is sure, of one category or of all, with their index."""
    chosen = (record["split"] == "test") & record["label"].isin(CERTAIN)
    return record[chosen if category is None else chosen & (record["category"] == category)]


def sample(rows: pd.DataFrame) -> Sample:
    """What the bootstrap resamples.

    Args:
        rows: Of a record, all of one category, as `certain` returns them.
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
