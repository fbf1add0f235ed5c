"""What an evaluation keeps of each image, so that a later model can be compared with this one.

A few kilobytes an image instead of its map: enough for every metric but to the binned pixel
metrics' small error, and for resampling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from decodiff_pipeline.evaluation.category_evaluator import CERTAIN
from decodiff_pipeline.metrics import binned
from decodiff_pipeline.metrics.bootstrap import Sample

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = (
    "category", "split", "label", "defect_type", "path", "sha256", "score", "near_duplicate",
)  # fmt: skip


def make_record(
    index: pd.DataFrame, near_duplicate: pd.Series, histograms: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """The table of an evaluation.

    Args:
        index: Of the predictions, labelled by the protocol.
        near_duplicate: bool, by the index of ``index``.
        histograms: By category, `binned.pack` of the images that every pixel's truth is known
            of, with their index.

    Returns:
        A row an image with `COLUMNS` and those of `binned.pack`, which are missing where the
        truth is not known.
    """
    record = index.assign(near_duplicate=near_duplicate)[list(COLUMNS)]
    bins = pd.concat(histograms.values()) if histograms else pd.DataFrame()
    return record.join(bins)


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
