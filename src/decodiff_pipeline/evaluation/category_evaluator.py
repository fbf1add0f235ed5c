"""The test images of one category beside their truth, and how to measure any of them."""

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
    """Good and defective test images of one category, as a protocol labels them.

    Args:
        index: Of the predictions, labelled by the protocol (`protocols.labelled`).
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
        """Image and pixel metrics of all the images, or of some of them."""
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
        """Maps and masks, pixel beside pixel, each read when it is asked for.

        Args:
            rows: Of `rows`; all of them by default.

        Returns:
            Those of the rows that every pixel's truth is known of; their maps; their masks.
        """
        found = self._known(self.rows if rows is None else rows)
        return found[1], *compared(*found)

    def _known(
        self, rows: pd.DataFrame
    ) -> tuple[
        Maps, pd.DataFrame, ImageFolder, PreprocessConfig, EvaluationConfig, dict[str, Region]
    ]:
        """What `protocols.compared` takes, of the rows that every pixel's truth is known of."""
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
