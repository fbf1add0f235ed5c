"""Images in, anomaly maps out: the whole method as one diffusers pipeline."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput

from decodiff_pipeline.deco.autoencoder import decode, encode
from decodiff_pipeline.deco.config import DiscrepancyConfig, PreprocessConfig
from decodiff_pipeline.deco.discrepancy import (
    anomaly_maps,
    image_scores,
    latent_discrepancy,
    pixel_discrepancy,
    scored_map,
    smoothed,
)
from decodiff_pipeline.deco.memory import keep_freed_memory
from decodiff_pipeline.deco.preprocess import to_square, to_tensor, to_uint8

# Imported for good: diffusers finds a saved model's parts among the imported modules only.
from decodiff_pipeline.deco.reference import DiscrepancyReference  # noqa: TC001
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler  # noqa: TC001
from decodiff_pipeline.deco.unet import DeCoDiffUNet  # noqa: TC001
from decodiff_pipeline.errors import ConfigurationError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image


@dataclass
class DeCoDiffOutput(BaseOutput):
    """What the model says of a batch of images.

    Attributes:
        anomaly_maps: float32 (N, H, W) within 0…1; higher is more anomalous.
        scores: float32 (N,) within 0…1, one per image.
        reconstructions: uint8 (N, H, W, 3), the images with their deviations corrected.
    """

    anomaly_maps: np.ndarray
    scores: np.ndarray
    reconstructions: np.ndarray


@dataclass
class Discrepancies:
    """The unclipped differences that a map is made of.

    Attributes:
        pixel: float32 (N, H, W).
        latent: float32 (N, h, w).
        reconstructed: dec(ẑ_0), float32 (N, 3, H, W), about within [-1, 1].
    """

    pixel: np.ndarray
    latent: np.ndarray
    reconstructed: torch.Tensor


@torch.no_grad()
def reverse_process(
    unet: DeCoDiffUNet,
    scheduler: DeCoDiffScheduler,
    sample: torch.Tensor,
    category_ids: torch.Tensor,
) -> torch.Tensor:
    """Walk the scheduler's timesteps from a latent to its correction (paper, Algorithm 2).

    Args:
        unet: The network, in eval mode.
        scheduler: Its timesteps are set.
        sample: Standardised latents as the network was trained on, float32 (N, C, h, w), on its
            device.
        category_ids: int64 (N,), on the same device.

    Returns:
        ẑ_0, float32 (N, C, h, w), standardised too.
    """
    for timestep in scheduler.timesteps:
        deviation = unet(sample.to(unet.dtype), timestep, category_ids).float()
        sample = scheduler.step(deviation, timestep, sample)[0]
    return sample


class DeCoDiffPipeline(DiffusionPipeline):
    """Detects and localises anomalies by correcting deviations from normality.

    ``DeCoDiffPipeline.from_pretrained(folder)`` and ``save_pretrained(folder)`` read and write
    safetensors, as for any diffusers pipeline.

    Source: Beizaee et al., CVPR 2025 (arXiv 2503.19357), section 3.

    Args:
        vae: The autoencoder whose latents the network was trained on.
        unet: The network.
        scheduler: The schedule.
        reference: Discrepancies of good images; needed where ``discrepancy`` asks for
            normalisation by position.
        preprocess: Fields of :class:`PreprocessConfig`.
        discrepancy: Fields of :class:`DiscrepancyConfig`.
        num_inference_steps: Reverse steps used where a call names none.
        bfloat16: Run autoencoder and network in bfloat16: about twice as fast where the processor
            or the GPU has it. The reverse process, discrepancies and maps stay in float32.
        scoring_fit: On what ``discrepancy`` was fitted and what was measured there; for the record
            alone.

    Raises:
        ConfigurationError: ``discrepancy`` asks for a reference that is not given.
    """

    _optional_components = ["reference"]  # noqa: RUF012 - the type diffusers expects

    def __init__(
        self,
        vae: Any,
        unet: DeCoDiffUNet,
        scheduler: DeCoDiffScheduler,
        reference: DiscrepancyReference | None = None,
        preprocess: dict[str, Any] | None = None,
        discrepancy: dict[str, Any] | None = None,
        num_inference_steps: int = 5,
        bfloat16: bool = False,
        scoring_fit: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        scoring = DiscrepancyConfig(**(discrepancy or {}))
        if scoring.normalisation == "position" and reference is None:
            msg = "discrepancy.normalisation is 'position', which needs a DiscrepancyReference"
            raise ConfigurationError(msg)
        vae.to(memory_format=torch.channels_last)  # half as fast again on a CPU
        keep_freed_memory()
        if bfloat16:
            vae.bfloat16()
            unet.bfloat16()
            if not torch.cuda.is_available():
                unet.use_plain_attention()
        unet.eval()  # dropout must not blur a score, whatever state training left the network in
        self.register_modules(vae=vae, unet=unet, scheduler=scheduler, reference=reference)
        self.register_to_config(
            preprocess=asdict(PreprocessConfig(**(preprocess or {}))),
            discrepancy=asdict(scoring),
            num_inference_steps=num_inference_steps,
            bfloat16=bfloat16,
            scoring_fit=scoring_fit,
        )

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories the network was trained on."""
        return self.unet.categories

    @property
    def preprocessing(self) -> PreprocessConfig:
        """Geometry of the model's input."""
        return PreprocessConfig(**self.config.preprocess)

    @property
    def discrepancy(self) -> DiscrepancyConfig:
        """How maps and scores are made."""
        return DiscrepancyConfig(**self.config.discrepancy)

    @property
    def image_size(self) -> int:
        """Side in pixels of the square input and of the maps."""
        return self.preprocessing.image_size

    def preprocess(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Resize and crop images to float32 (N, 3, image_size, image_size) within [-1, 1]."""
        return to_tensor([to_square(image, self.preprocessing) for image in images])

    def __call__(
        self,
        images: Sequence[Image.Image] | torch.Tensor,
        category: str | Sequence[str],
        num_inference_steps: int | None = None,
        batch_size: int = 16,
    ) -> DeCoDiffOutput:
        """Score images.

        Args:
            images: PIL images of any size, or a tensor as :meth:`preprocess` returns it.
            category: One category for all images, or one for each.
            num_inference_steps: Reverse steps; by default those the model was saved with.
            batch_size: Images processed at once.

        Returns:
            Maps, scores and reconstructions, in the order of the images.

        Raises:
            ModelError: There is no image, a category is unknown, or there are not as many
                categories as images.
        """
        category_ids = self._category_ids(category, len(images))
        outputs = []
        with self.progress_bar(total=len(images)) as bar:
            for start in range(0, len(images), batch_size):
                batch = images[start : start + batch_size]
                tensor = batch if isinstance(batch, torch.Tensor) else self.preprocess(batch)
                ids = category_ids[start : start + batch_size]
                outputs.append(self._score(tensor, ids, num_inference_steps))
                bar.update(len(tensor))
        return DeCoDiffOutput(
            **{name: np.concatenate([part[name] for part in outputs]) for name in outputs[0]}
        )

    @torch.no_grad()
    def correct(
        self,
        latents: torch.Tensor,
        category_ids: torch.Tensor,
        num_inference_steps: int | None = None,
    ) -> torch.Tensor:
        """Reverse process from the latents themselves; no noise is added (paper, Algorithm 2).

        Args:
            latents: z, float (N, C, h, w).
            category_ids: int64 (N,), indices into :attr:`categories`.
            num_inference_steps: See :meth:`__call__`.

        Returns:
            ẑ_0, float32 (N, C, h, w).
        """
        self.scheduler.set_timesteps(num_inference_steps or self.config.num_inference_steps)
        sample = self.unet.standardise(latents.to(self.unet.device, torch.float32))
        ids = category_ids.to(self.unet.device)
        return self.unet.restore(reverse_process(self.unet, self.scheduler, sample, ids))

    def discrepancies(
        self,
        images: torch.Tensor,
        category_ids: torch.Tensor,
        num_inference_steps: int | None = None,
    ) -> Discrepancies:
        """Differences between the corrected and the encoded images.

        Args:
            images: Float (N, 3, H, W) within [-1, 1].
            category_ids: int64 (N,), indices into :attr:`categories`.
            num_inference_steps: See :meth:`__call__`.

        Returns:
            Pixel and latent discrepancies and the corrected images, decoded.
        """
        latents, _ = encode(self.vae, images)
        corrected = self.correct(latents, category_ids, num_inference_steps)
        both = decode(self.vae, torch.cat([corrected, latents.to(corrected)]))
        reconstructed, encoded = both.chunk(2)
        return Discrepancies(
            pixel=pixel_discrepancy(reconstructed, encoded),
            latent=latent_discrepancy(
                self.unet.standardise(corrected),
                self.unet.standardise(latents.to(corrected)),
                self.discrepancy.latent_reduction,
            ),
            reconstructed=reconstructed,
        )

    def maps_and_scores(
        self, pixel: np.ndarray, latent: np.ndarray, category_ids: torch.Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        """What :attr:`discrepancy` makes of the unclipped differences.

        Args:
            pixel: As in :class:`Discrepancies`.
            latent: The same.
            category_ids: int64 (N,), indices into :attr:`categories`.

        Returns:
            Maps and scores as in :class:`DeCoDiffOutput`.
        """
        config = self.discrepancy
        if config.normalisation == "position":
            pixel, latent = self.reference.normalise(category_ids.tolist(), pixel, latent)
        pixel, latent = smoothed(pixel, latent, config)
        maps = anomaly_maps(pixel, latent, config)
        return maps, image_scores(scored_map(maps, pixel, latent, config), config)

    def _score(
        self, images: torch.Tensor, category_ids: torch.Tensor, steps: int | None
    ) -> DeCoDiffOutput:
        found = self.discrepancies(images, category_ids, steps)
        maps, scores = self.maps_and_scores(found.pixel, found.latent, category_ids)
        return DeCoDiffOutput(maps, scores, to_uint8(found.reconstructed))

    def _category_ids(self, category: str | Sequence[str], count: int) -> torch.Tensor:
        names = [category] * count if isinstance(category, str) else list(category)
        if not count or len(names) != count:
            msg = f"{count} images with {len(names)} categories; give one category for each image"
            raise ModelError(msg)
        known = {name: index for index, name in enumerate(self.categories)}
        unknown = sorted(set(names) - set(known))
        if unknown:
            msg = f"unknown category {unknown[0]!r}; this model knows {', '.join(known)}"
            raise ModelError(msg)
        return torch.tensor([known[name] for name in names])
