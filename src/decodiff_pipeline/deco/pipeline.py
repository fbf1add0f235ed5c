"""The complete method as a diffusers pipeline: images to anomaly maps and scores."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from diffusers import DiffusionPipeline

from decodiff_pipeline.deco.assembly import DeCoDiffOutput, assemble
from decodiff_pipeline.deco.autoencoder import decode, encode
from decodiff_pipeline.deco.colour import apply_orientation, to_category_depth
from decodiff_pipeline.deco.config import DiscrepancyConfig, PreprocessConfig, require_places

# Components are imported at run time, since diffusers finds classes in imported modules only.
from decodiff_pipeline.deco.deviations import UsualDeviations  # noqa: TC001
from decodiff_pipeline.deco.device import compile_where_preferred, resolve_device
from decodiff_pipeline.deco.discrepancy import (
    Discrepancies,
    latent_discrepancy,
    pixel_discrepancy,
    square_maps,
)
from decodiff_pipeline.deco.geometry import square_count, squares
from decodiff_pipeline.deco.preprocess import square_batches, to_tensor, to_uint8
from decodiff_pipeline.deco.recognition import CategoryRecogniser  # noqa: TC001
from decodiff_pipeline.deco.reference import DiscrepancyReference  # noqa: TC001
from decodiff_pipeline.deco.regions import fill, squares_inside
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler, reverse_process
from decodiff_pipeline.deco.settings import PipelineSettings, thresholds_beside, without_warnings
from decodiff_pipeline.deco.unet import DeCoDiffUNet  # noqa: TC001
from decodiff_pipeline.errors import ConfigurationError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from PIL import Image


class DeCoDiffPipeline(PipelineSettings, DiffusionPipeline):
    """Detects and localises anomalies by correcting deviations from normality.

    ``DeCoDiffPipeline.from_pretrained(folder)`` and ``save_pretrained(folder)`` read and write
    safetensors, as for any diffusers pipeline.

    Source: Beizaee et al., CVPR 2025 (arXiv 2503.19357), section 3.

    Args:
        reference: Mean discrepancies of good images, for normalisation by position.
        recogniser: Recognises the category of an image; see :func:`.recognition.recognise`.
        deviations: Removes the deviations that the network makes in good images.
        preprocess, discrepancy: Fields of `PreprocessConfig` and `DiscrepancyConfig`.
        num_inference_steps: Default number of reverse steps.
        bfloat16: Run autoencoder and network in bfloat16: about twice as fast if the CPU or GPU
            supports it. The reverse process, discrepancies and maps stay in float32.
        scoring_fit: Record of the fit of ``discrepancy``: images and metrics.
        bit_depths: Category → bits that its 16-bit images use, if fewer than 16.
        regions: Category → fields of its `Region`; without one the whole image counts.

    Attributes:
        thresholds: Category → image threshold; not saved with the model.

    Raises:
        ConfigurationError: ``discrepancy`` normalises by position, but there is no reference, or
            images are tiled.
    """

    _optional_components = ["reference", "recogniser", "deviations"]  # noqa: RUF012 - its type

    def __init__(
        self,
        vae: Any,
        unet: DeCoDiffUNet,
        scheduler: DeCoDiffScheduler,
        reference: DiscrepancyReference | None = None,
        recogniser: CategoryRecogniser | None = None,
        deviations: UsualDeviations | None = None,
        preprocess: dict[str, Any] | None = None,
        discrepancy: dict[str, Any] | None = None,
        num_inference_steps: int = 5,
        bfloat16: bool = False,
        scoring_fit: dict[str, Any] | None = None,
        bit_depths: dict[str, int] | None = None,
        regions: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.thresholds: dict[str, float | None] = {}
        scoring = DiscrepancyConfig(**(discrepancy or {}))
        geometry = PreprocessConfig(**(preprocess or {}))
        require_places(scoring, geometry)
        if scoring.normalisation == "position" and reference is None:
            raise ConfigurationError(
                "discrepancy.normalisation is 'position', which needs a DiscrepancyReference"
            )
        unet.eval()  # no dropout
        self.register_modules(
            vae=vae,
            unet=unet,
            scheduler=scheduler,
            reference=reference,
            recogniser=recogniser,
            deviations=deviations,
        )
        self.register_to_config(
            preprocess=geometry.facts(),
            discrepancy=scoring.facts(),
            num_inference_steps=num_inference_steps,
            bfloat16=bfloat16,
            scoring_fit=scoring_fit,
            bit_depths=bit_depths or None,
        )
        if regions:  # left out without regions, for compatibility with earlier versions
            self.register_to_config(regions=regions)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Self:
        """Load a saved model for inference; arguments as in diffusers.

        :attr:`thresholds` are read from ``thresholds.json`` next to the model's folder, where
        evaluation and registration write it.
        """
        with without_warnings():
            loaded = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        loaded.thresholds = thresholds_beside(Path(pretrained_model_name_or_path))
        return loaded.for_inference()

    def for_inference(self) -> Self:
        """Set the configured precision and the faster memory layout; called after loading."""
        self.vae.to(memory_format=torch.channels_last)  # 1.5 times as fast on a CPU
        if self.config.bfloat16:
            self.vae.bfloat16()
            self.unet.bfloat16()
            if resolve_device() == "cpu":
                self.unet.use_plain_attention()
        compile_where_preferred(self.unet)
        return self

    def preprocess(self, images: Image.Image | Iterable[Image.Image]) -> torch.Tensor:
        """All squares of the images, float32 (M, 3, image_size, image_size) within [-1, 1].

        16-bit images are scaled by their full range; use `to_eight_bit` before for other ranges.
        """
        upright, geometry = apply_orientation(images), self.preprocessing
        return to_tensor([square for image in upright for square in squares(image, geometry)])

    def __call__(
        self,
        images: Image.Image | Iterable[Image.Image] | torch.Tensor,
        category: str | Sequence[str],
        num_inference_steps: int | None = None,
        batch_size: int = 16,
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> DeCoDiffOutput:
        """Compute maps and scores of images of any size.

        An image has one square or, with ``fit: tile``, several. Batches mix the squares of all
        images. Image scores are computed from the stitched maps.

        Args:
            images: One or several PIL images, or a tensor as :meth:`preprocess` returns it. EXIF
                orientation is applied, and images are converted as in :mod:`~.colour`.
            category: One category for all images, or one for each.
            num_inference_steps: Reverse steps; by default the model's own.
            batch_size: Squares per batch.
            sizes: Width and height of each image, if ``images`` is a tensor; by default each of
                its squares is a square image.

        Returns:
            Maps, scores, reconstructions and decisions, in the order of the images.

        Raises:
            ModelError: There is no image, an item is no image, a category is unknown,
                ``batch_size`` is below 1, or the numbers of images, categories and squares differ.
            ConfigurationError: The schedule does not support the number of reverse steps.
            ImageError: An image is too narrow for ``fit``, or its mode is not supported.
        """
        if batch_size < 1:
            raise ModelError(f"batch_size is {batch_size}; it must be at least 1")
        if isinstance(images, torch.Tensor):
            sizes = sizes or [(self.image_size, self.image_size)] * len(images)
            batches: Iterable[torch.Tensor] = images.split(batch_size)
        else:
            converted = to_category_depth(apply_orientation(images), category, self.bit_depths)
            sizes = [image.size for image in converted]
            batches = square_batches(converted, self.preprocessing, batch_size)
        category_ids = self._category_ids(category, len(sizes))
        ids = self._per_square(category_ids, sizes)
        if isinstance(images, torch.Tensor) and len(images) != len(ids):
            raise ModelError(
                f"{len(sizes)} images of these sizes have {len(ids)} squares, not {len(images)}"
            )
        regions = self._regions(category_ids)
        inside = squares_inside(regions, sizes, self.preprocessing)
        scored = self._scored(batches, ids, num_inference_steps, inside)
        limits = [self.thresholds.get(self.categories[number]) for number in category_ids.tolist()]
        scores = self._image_scores(category_ids)
        return assemble(scored, sizes, self.preprocessing, scores, limits, regions)

    @torch.no_grad()
    def correct(
        self,
        latents: torch.Tensor,
        category_ids: torch.Tensor,
        num_inference_steps: int | None = None,
    ) -> torch.Tensor:
        """Correct latents by the reverse process, without added noise (paper, Algorithm 2).

        If the model has usual deviations, they are removed from the correction.

        Args:
            latents: z, float (N, C, h, w).
            category_ids: int64 (N,), indices into :attr:`categories`.

        Returns:
            ẑ_0, float32 (N, C, h, w).
        """
        if num_inference_steps is None:
            num_inference_steps = self.config.num_inference_steps
        self.scheduler.set_timesteps(num_inference_steps)
        sample = self.unet.standardise(latents.to(self.unet.device, torch.float32))
        ids = category_ids.to(self.unet.device)
        corrected = reverse_process(self.unet, self.scheduler, sample, ids)
        if self.deviations is not None:
            corrected = sample + self.deviations.removed(ids, corrected - sample)
        return self.unet.restore(corrected)

    def discrepancies(
        self,
        images: torch.Tensor,
        category_ids: torch.Tensor,
        num_inference_steps: int | None = None,
    ) -> Discrepancies:
        """Discrepancies between corrected and encoded images, and reconstructions.

        With ``pixel_compared_with: both`` the pixel discrepancy also contains the difference
        between the reconstruction and the input image.

        Args:
            images: Float (N, 3, H, W) within [-1, 1].
            category_ids: int64 (N,), indices into :attr:`categories`.
        """
        latents, _ = encode(self.vae, images)
        corrected = self.correct(latents, category_ids, num_inference_steps)
        both = decode(self.vae, torch.cat([corrected, latents.to(corrected)]))
        reconstructed, encoded = both.chunk(2)
        pixel = pixel_discrepancy(reconstructed, encoded)
        if self.discrepancy.pixel_compared_with == "both":
            pixel = (pixel * pixel_discrepancy(reconstructed, images.to(reconstructed))).sqrt()
        return Discrepancies(
            pixel=pixel,
            latent=latent_discrepancy(
                self.unet.standardise(corrected),
                self.unet.standardise(latents.to(corrected)),
                self.discrepancy.latent_reduction,
            ),
            reconstructed=reconstructed,
        )

    def maps_and_scores(
        self,
        pixel: torch.Tensor,
        latent: torch.Tensor,
        category_ids: torch.Tensor,
        sizes: Sequence[tuple[int, int]],
    ) -> tuple[np.ndarray | list[np.ndarray], np.ndarray]:
        """Maps and scores as in :class:`DeCoDiffOutput`, from unclipped discrepancies.

        Args:
            pixel, latent: As in :class:`Discrepancies`, for all squares of the images.
            category_ids: int64 (N,), indices into :attr:`categories`, one for each image.
            sizes: Width and height of each image in pixels.
        """
        regions = self._regions(category_ids)
        inside = _next(squares_inside(regions, sizes, self.preprocessing), len(pixel))
        ids = self._per_square(category_ids, sizes)
        maps, scored = self._maps(pixel, latent, ids, inside)
        parts, scores = zip(maps, scored, maps, strict=True), self._image_scores(category_ids)
        output = assemble(parts, sizes, self.preprocessing, scores, regions=regions)
        return output.anomaly_maps, output.scores

    def _maps(
        self,
        pixel: torch.Tensor,
        latent: torch.Tensor,
        category_ids: torch.Tensor,
        inside: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        config, scores = self.discrepancy, self._image_scores(category_ids)
        if config.normalisation == "position":
            pixel, latent = self.reference.normalise(category_ids, pixel, latent)
        return square_maps(pixel, latent, config, scores, inside)

    def _scored(
        self,
        batches: Iterable[torch.Tensor],
        category_ids: torch.Tensor,
        steps: int | None,
        inside: Iterator[np.ndarray] | None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Map, scored map and reconstruction of each square."""
        filled = any(region.filled for region in self.regions.values())
        with self.progress_bar(total=len(category_ids)) as bar:
            for batch in batches:
                ids, category_ids = category_ids[: len(batch)], category_ids[len(batch) :]
                mask = _next(inside, len(batch))
                model_input = _filled(batch, mask) if filled and mask is not None else batch
                result = self.discrepancies(model_input, ids, steps)
                maps, scored = self._maps(result.pixel, result.latent, ids, mask)
                bar.update(len(batch))
                yield from zip(maps, scored, to_uint8(result.reconstructed), strict=True)

    def _per_square(
        self, category_ids: torch.Tensor, sizes: Sequence[tuple[int, int]]
    ) -> torch.Tensor:
        counts = [square_count(size, self.preprocessing) for size in sizes]
        return category_ids.repeat_interleave(torch.tensor(counts))


def _next(inside: Iterator[np.ndarray] | None, count: int) -> np.ndarray | None:
    """The pixels inside of the regions of the next squares, bool (N, S, S)."""
    return None if inside is None else np.stack(list(islice(inside, count)))


def _filled(squares: torch.Tensor, inside: np.ndarray) -> torch.Tensor:
    parts = zip(squares.permute(0, 2, 3, 1), inside, strict=True)
    return torch.stack([fill(*part) for part in parts]).permute(0, 3, 1, 2)
