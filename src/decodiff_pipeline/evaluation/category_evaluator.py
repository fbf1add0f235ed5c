"""Metrics of the test images of one category, or of a part of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from decodiff_pipeline.evaluation.protocols import compared, measure_pixels, with_ground_truth
from decodiff_pipeline.metrics.exact import Metrics, OnDemand, image_metrics

if TYPE_CHECKING:
    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.deco.regions import Region
    from decodiff_pipeline.evaluation.config import EvaluationConfig
    from decodiff_pipeline.evaluation.predictions import PredictionStore
    from decodiff_pipeline.metrics.threshold_counts import Maps, Masks

CERTAIN = ("good", "defective")


class CategoryEvaluator:
    """Good and defective test images of one category, with the labels of a protocol.

    Args:
        index: Index of the predictions, labelled by the protocol (`protocols.labelled`).
    """

    def __init__(
        self,
        category: str,
        index: pd.DataFrame,
        predictions: PredictionStore,
        images: ImageFolder,
        config: EvaluationConfig,
    ) -> None:
        chosen = (index["category"] == category) & (index["split"] == "test")
        self.rows = index[chosen & index["label"].isin(CERTAIN)]
        self._category = category
        self._predictions = predictions
        self._images = images
        self._config = config

    def metrics(self, rows: pd.DataFrame | None = None) -> Metrics:
        """Image and pixel metrics of all images, or of some rows."""
        rows = self.rows if rows is None else rows
        return {
            **image_metrics(scores(rows), defective(rows)),
            **measure_pixels(*self._known(rows)),
        }

    def counts(self) -> dict[str, int]:
        """``n_good`` and ``n_defective`` images, and ``n_masks``."""
        bad = defective(self.rows)
        return {
            "n_good": int((~bad).sum()),
            "n_defective": int(bad.sum()),
            "n_masks": int(self.rows["mask_path"].notna().sum()),
        }

    def compared(self, rows: pd.DataFrame | None = None) -> tuple[pd.DataFrame, Maps, Masks]:
        """Rows with known pixel labels, and their maps and masks of equal size, read on access."""
        arguments = self._known(self.rows if rows is None else rows)
        return arguments[1], *compared(*arguments)

    def _known(
        self, rows: pd.DataFrame
    ) -> tuple[
        Maps, pd.DataFrame, ImageFolder, PreprocessConfig, EvaluationConfig, dict[str, Region]
    ]:
        """The arguments of `protocols.compared` for the rows with known pixel labels."""
        known = with_ground_truth(rows)
        stored, numbers = self._predictions.maps(self._category), known["row"].tolist()
        maps = OnDemand(len(numbers), lambda index: stored[numbers[index]])
        geometry, regions = self._predictions.geometry(), self._predictions.regions()
        return maps, known, self._images, geometry, self._config, regions


def scores(rows: pd.DataFrame) -> np.ndarray:
    """Image scores, float32 (N,)."""
    return rows["score"].to_numpy(np.float32)


def defective(rows: pd.DataFrame) -> np.ndarray:
    """Which images are defective, bool (N,)."""
    return (rows["label"] == "defective").to_numpy()
