"""What the diffusion model has to beat, measured on the same images by the same functions."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from decodiff_pipeline.deco.autoencoder import decode, encode
from decodiff_pipeline.deco.discrepancy import pixel_discrepancy
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline, Discrepancies
from decodiff_pipeline.evaluation.category_evaluator import CERTAIN, CategoryEvaluator
from decodiff_pipeline.evaluation.pca_baseline import pca_baseline
from decodiff_pipeline.evaluation.protocols import labelled
from decodiff_pipeline.metrics.exact import IMAGE_METRICS, PIXEL_METRICS

if TYPE_CHECKING:
    import torch

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.evaluation.config import EvaluationConfig
    from decodiff_pipeline.evaluation.predictions import PredictionStore

logger = logging.getLogger(__name__)

IMAGE_RANGE = 2.0  # from -1 to 1


def measure_baselines(
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    autoencoder: PredictionStore,
    config: EvaluationConfig,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Metrics of both baselines in every category, and their scores.

    Args:
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
    return CategoryEvaluator(category, index, predictions, images, config).metrics()


class AutoencoderBaseline(DeCoDiffPipeline):
    """Maps max_c |dec(enc(x)) - x|, in the geometry and with the smoothing of a trained model.

    A map is the error over the range of an image, 2, smoothed with the model's ``pixel_sigma`` and
    never fused with anything. The image score is the model's rule on that map.
    """

    @classmethod
    def of(cls, model: DeCoDiffPipeline) -> AutoencoderBaseline:
        """The baseline beside a model: the same autoencoder, geometry and sizes, not copied."""
        scoring = replace(
            model.discrepancy,
            normalisation="none",
            fusion="pixel",
            score_from="map",
            image_scores={
                category: replace(score, score_from="map")
                for category, score in model.discrepancy.image_scores.items()
            },
            pixel_limit=IMAGE_RANGE,
        )
        return cls(
            model.vae,
            model.unet,
            model.scheduler,
            preprocess=dict(model.config.preprocess),
            discrepancy=scoring.facts(),
            bit_depths=model.bit_depths,
        )

    def discrepancies(
        self,
        images: torch.Tensor,
        category_ids: torch.Tensor,
        num_inference_steps: int | None = None,
    ) -> Discrepancies:
        """Differences between images and what the autoencoder makes of them.

        Args:
            images: Float (N, 3, H, W) within [-1, 1].
            category_ids: Of no influence.
            num_inference_steps: The same.

        Returns:
            The pixel discrepancy and the images as reproduced; the latent one is zero.
        """
        del category_ids, num_inference_steps
        latents, _ = encode(self.vae, images)
        decoded = decode(self.vae, latents)
        return Discrepancies(
            pixel=pixel_discrepancy(decoded, images.to(decoded)),
            latent=np.zeros((len(latents), *latents.shape[2:]), np.float32),
            reconstructed=decoded,
        )
