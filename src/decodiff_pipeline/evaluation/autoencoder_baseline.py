"""The autoencoder baseline: the reconstruction error of the autoencoder alone."""

from __future__ import annotations

from dataclasses import replace

import torch

from decodiff_pipeline.deco.autoencoder import decode, encode
from decodiff_pipeline.deco.discrepancy import pixel_discrepancy
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline, Discrepancies

IMAGE_RANGE = 2.0  # of images within [-1, 1]


class AutoencoderBaseline(DeCoDiffPipeline):
    """Anomaly maps max_c |dec(enc(x)) - x|, with the geometry and smoothing of a trained model.

    A map is the error divided by the range of an image, 2, and smoothed with the model's
    ``pixel_sigma``. The image score is computed from it as the model's.
    """

    @classmethod
    def of(cls, model: DeCoDiffPipeline) -> AutoencoderBaseline:
        """The baseline of a model; it shares the model's autoencoder and geometry."""
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
            regions=model.config.get("regions"),
        )

    def discrepancies(
        self,
        images: torch.Tensor,
        category_ids: torch.Tensor,
        num_inference_steps: int | None = None,
    ) -> Discrepancies:
        """Errors and reconstructions of images; the latent discrepancy is zero."""
        del category_ids, num_inference_steps
        latents, _ = encode(self.vae, images)
        decoded = decode(self.vae, latents)
        return Discrepancies(
            pixel=pixel_discrepancy(decoded, images.to(decoded)),
            latent=torch.zeros_like(latents[:, 0], dtype=torch.float32),
            reconstructed=decoded,
        )
