"""The baseline of the autoencoder alone: what it does not reproduce."""

from __future__ import annotations

from dataclasses import replace

import torch

from decodiff_pipeline.deco.autoencoder import decode, encode
from decodiff_pipeline.deco.discrepancy import pixel_discrepancy
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline, Discrepancies

IMAGE_RANGE = 2.0  # from -1 to 1


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
            regions=model.config.get("regions"),
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
            latent=torch.zeros_like(latents[:, 0], dtype=torch.float32),
            reconstructed=decoded,
        )
