"""What the diffusion model has to beat, measured on the same images by the same functions."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pandas as pd

from decodiff_pipeline.evaluation.judged import CERTAIN, Judged
from decodiff_pipeline.evaluation.metrics import IMAGE_METRICS, PIXEL_METRICS
from decodiff_pipeline.evaluation.pca_baseline import pca_baseline
from decodiff_pipeline.evaluation.protocols import labelled
from decodiff_pipeline.evaluation.scoring import score_images

if TYPE_CHECKING:
    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.evaluation.config import EvaluationConfig
    from decodiff_pipeline.evaluation.predictions import PredictionStore
    from decodiff_pipeline.evaluation.scoring import AnomalyModel

logger = logging.getLogger(__name__)


def score_test_images(
    model: AnomalyModel,
    manifest: pd.DataFrame,
    images: ImageFolder,
    store: PredictionStore,
    config: EvaluationConfig,
) -> None:
    """Score the test images alone; a baseline has no threshold that calibration would serve.

    Args:
        model: Such as `autoencoder_baseline.AutoencoderBaseline`.
        manifest: The validated manifest.
        images: The raw images.
        store: Where the predictions go.
        config: Batch size.

    Raises:
        ModelError: As `scoring.score_images`; so with the next two.
        ImageError: An image cannot be read.
        DataError: The predictions cannot be written.
    """
    score_images(model, manifest[manifest["split"] == "test"], images, store, config)


def measure_baselines(
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    autoencoder: PredictionStore,
    config: EvaluationConfig,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Metrics of both baselines in every category, and their scores.

    Args:
        manifest: The validated manifest.
        images: The raw images.
        geometry: The model's.
        autoencoder: Test images as the autoencoder baseline scored them.
        config: Protocol and limit of AUPRO.

    Returns:
        ``pca`` and ``autoencoder``, category → metrics, ``protocol`` and ``resolution``; see
        `pca_baseline.PcaBaseline`; ``None`` wherever there is nothing to measure. And a row for
        each good or defective test image: path, category, pca_score, autoencoder_score (float64,
        NaN where there is none).
    """
    pca = pca_baseline(manifest, images, geometry, config)
    index = autoencoder.index()
    table = {}
    for category in sorted(set(manifest["category"])):
        rows = index[index["category"] == category]
        table[category] = _measured(category, rows, autoencoder, images, config)
        logger.info(
            "autoencoder alone on %s: image AUROC %s", category, table[category]["image_auroc"]
        )
    certain = index[index["label"].isin(CERTAIN)]
    scores = pd.DataFrame(
        {
            "path": certain["path"],
            "category": certain["category"],
            "pca_score": certain["path"].map(pca.scores).astype(float),
            "autoencoder_score": certain["score"].astype(float),
        }
    )
    metrics = {
        "pca": pca.metrics,
        "autoencoder": table,
        "protocol": config.protocol,
        "resolution": config.resolution,
    }
    return metrics, scores.reset_index(drop=True)


def _measured(
    category: str,
    rows: pd.DataFrame,
    predictions: PredictionStore,
    images: ImageFolder,
    config: EvaluationConfig,
) -> dict[str, Any]:
    """Metrics of one category's test images, as the protocol labels them."""
    if rows.empty:
        return dict.fromkeys((*IMAGE_METRICS, *PIXEL_METRICS))
    index = labelled(rows, images, predictions.geometry(), config.protocol)
    return Judged(category, index, predictions, images, config).metrics()
