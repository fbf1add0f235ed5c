"""Images in, anomaly maps out: the whole method as one diffusers pipeline."""

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

# Imported at run time, as the parts below: diffusers looks for them in imported modules only.
from decodiff_pipeline.deco.deviations import UsualDeviations  # noqa: TC001
from decodiff_pipeline.deco.device import compile_where_preferred, resolve_device
from decodiff_pipeline.deco.discrepancy import (
    Discrepancies,
    anomaly_maps,
    latent_discrepancy,
    pixel_discrepancy,
    scored_map,
    smoothed,
)
from decodiff_pipeline.deco.geometry import square_count, squares
from decodiff_pipeline.deco.preprocess import square_batches, to_tensor, to_uint8
from decodiff_pipeline.deco.recognition import CategoryRecogniser  # noqa: TC001
from decodiff_pipeline.deco.reference import DiscrepancyReference  # noqa: TC001
from decodiff_pipeline.deco.regions import Region, fill, read_regions, squares_inside
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler, reverse_process
from decodiff_pipeline.deco.tensor_files import thresholds_beside, without_warnings
from decodiff_pipeline.deco.unet import DeCoDiffUNet  # noqa: TC001
from decodiff_pipeline.errors import ConfigurationError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from PIL import Image

    from decodiff_pipeline.deco.config import ImageScoreConfig


class DeCoDiffPipeline(DiffusionPipeline):
    """Detects and localises anomalies by correcting deviations from normality.

    ``DeCoDiffPipeline.from_pretrained(folder)`` and ``save_pretrained(folder)`` read and write
    safetensors, as for any diffusers pipeline.

    Source: Beizaee et al., CVPR 2025 (arXiv 2503.19357), section 3.

    Args:
        reference: Discrepancies of good images; needed where ``discrepancy`` asks for
            normalisation by position.
        recogniser: What tells the category of an image; see :func:`.recognition.recognise`.
        deviations: What of a deviation is usual in good images and removed from it.
        preprocess, discrepancy: Fields of `PreprocessConfig` and `DiscrepancyConfig`.
        num_inference_steps: Reverse steps used where a call names none.
        bfloat16: Run autoencoder and network in bfloat16: about twice as fast where the processor
            or the GPU has it. The reverse process, discrepancies and maps stay in float32.
        scoring_fit: Record of what ``discrepancy`` was fitted on and what was measured there.
        bit_depths: Category → used bits of its 16-bit images, where it is less than 16.
        regions: Category → fields of the `Region` of its images that counts, where not all does.

    Attributes:
        thresholds: Category → score from which on an image is defective; not saved with the model.

    Raises:
        ConfigurationError: ``discrepancy`` asks for a reference that is not given, or for one by
            position of tiles.
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
        unet.eval()  # dropout must not blur a score, whatever state training left the network in
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
        if regions:  # what is saved of a model without them stays as it was before there were any
            self.register_to_config(regions=regions)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Self:
        """Load a saved model, ready to score; arguments as diffusers' own.

        ``thresholds.json`` beside the model's folder, where evaluation and registration put it,
        becomes :attr:`thresholds`.
        """
        with without_warnings():
            loaded = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        loaded.thresholds = thresholds_beside(Path(pretrained_model_name_or_path))
        return loaded.for_inference()

    def for_inference(self) -> Self:
        """Bring autoencoder and network into the configured precision and the faster layout.

        Loading a saved model does it.
        """
        self.vae.to(memory_format=torch.channels_last)  # half as fast again on a CPU
        if self.config.bfloat16:
            self.vae.bfloat16()
            self.unet.bfloat16()
            if resolve_device() == "cpu":
                self.unet.use_plain_attention()
        compile_where_preferred(self.unet)
        return self

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
    def bit_depths(self) -> dict[str, int]:
        """How many bits the 16-bit images of a category use; 16 where it is not in here."""
        return dict(self.config.get("bit_depths") or {})

    @property
    def regions(self) -> dict[str, Region]:
        """What of the images of a category counts; all where it is not in here."""
        return read_regions(self.config)

    @property
    def image_size(self) -> int:
        """Side in pixels of the square input."""
        return self.preprocessing.image_size

    def preprocess(self, images: Image.Image | Iterable[Image.Image]) -> torch.Tensor:
        """All squares of the images, float32 (M, 3, image_size, image_size) within [-1, 1].

        16-bit images are read by all 16 bits; `to_eight_bit` reads them by fewer beforehand.
        """
        whole, geometry = apply_orientation(images), self.preprocessing
        return to_tensor([square for image in whole for square in squares(image, geometry)])

    def __call__(
        self,
        images: Image.Image | Iterable[Image.Image] | torch.Tensor,
        category: str | Sequence[str],
        num_inference_steps: int | None = None,
        batch_size: int = 16,
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> DeCoDiffOutput:
        """Score images of any size.

        An image is one square or, with ``fit: tile``, several; squares of all images are
        processed together. The image score is taken from the map that the squares make together,
        so that it means the same of one tile and of many.

        Args:
            images: PIL images or one, or a tensor as :meth:`preprocess` returns it. They are turned
                as their EXIF orientation says and converted as in :mod:`~.colour`.
            category: One category for all images, or one for each.
            num_inference_steps: Reverse steps; by default those the model was saved with.
            sizes: Width and height of each image, where ``images`` is a tensor; by default each
                of its squares was an image of its own, and a square one.

        Returns:
            Maps, scores, reconstructions and decisions, in the order of the images.

        Raises:
            ModelError: There is no image or something that is none, a category is unknown,
                ``batch_size`` is below 1, or there are not as many categories as images, or
                squares as the images have.
            ConfigurationError: The schedule has no such number of reverse steps.
            ImageError: An image is too long and narrow for ``fit``, or of a mode that is not
                converted.
        """
        if batch_size < 1:
            raise ModelError(f"batch_size is {batch_size}; it must be at least 1")
        if isinstance(images, torch.Tensor):
            sizes = sizes or [(self.image_size, self.image_size)] * len(images)
            batches: Iterable[torch.Tensor] = images.split(batch_size)
        else:
            pictures = to_category_depth(apply_orientation(images), category, self.bit_depths)
            sizes = [picture.size for picture in pictures]
            batches = square_batches(pictures, self.preprocessing, batch_size)
        own = self._category_ids(category, len(sizes))
        ids = self._per_square(own, sizes)
        if isinstance(images, torch.Tensor) and len(images) != len(ids):
            raise ModelError(
                f"{len(sizes)} images of these sizes have {len(ids)} squares, not {len(images)}"
            )
        regions = self._regions(own)
        inside = squares_inside(regions, sizes, self.preprocessing)
        scored = self._scored(batches, ids, num_inference_steps, inside)
        limits = [self.thresholds.get(self.categories[number]) for number in own.tolist()]
        scores = self._image_scores(own)
        return assemble(scored, sizes, self.preprocessing, scores, limits, regions)

    @torch.no_grad()
    def correct(
        self,
        latents: torch.Tensor,
        category_ids: torch.Tensor,
        num_inference_steps: int | None = None,
    ) -> torch.Tensor:
        """Reverse process from the latents themselves; no noise is added (paper, Algorithm 2).

        What of the deviation is usual in good images is taken back, where the model knows it.

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
        """Differences between the corrected and the encoded images, and the former, decoded.

        Args:
            images: Float (N, 3, H, W) within [-1, 1].
            category_ids: int64 (N,), indices into :attr:`categories`.

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
        self,
        pixel: torch.Tensor,
        latent: torch.Tensor,
        category_ids: torch.Tensor,
        sizes: Sequence[tuple[int, int]],
    ) -> tuple[np.ndarray | list[np.ndarray], np.ndarray]:
        """Maps and scores as in :class:`DeCoDiffOutput`, from the unclipped differences.

        Args:
            pixel, latent: As in :class:`Discrepancies`, of all squares of the images.
            category_ids: int64 (N,), indices into :attr:`categories`, one for each image.
            sizes: Width and height of each image in pixels.
        """
        regions = self._regions(category_ids)
        inside = _taken(squares_inside(regions, sizes, self.preprocessing), len(pixel))
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
        """The maps of squares, and what their scores are taken from: float32 (M, H, W) both."""
        config = self.discrepancy
        if config.normalisation == "position":
            pixel, latent = self.reference.normalise(category_ids, pixel, latent)
        pixel, latent = smoothed(pixel, latent, config, inside)
        maps = anomaly_maps(pixel, latent, config)
        each = zip(maps, pixel, latent, self._image_scores(category_ids), strict=True)
        scored = torch.stack([scored_map(*parts) for parts in each])
        return maps.cpu().numpy(), scored.cpu().numpy()

    def _regions(self, category_ids: torch.Tensor) -> list[Region | None]:
        """What of each image counts; ``None`` where all of it does."""
        regions = self.regions
        return [regions.get(self.categories[number]) for number in category_ids.tolist()]

    def _image_scores(self, category_ids: torch.Tensor) -> list[ImageScoreConfig]:
        config, names = self.discrepancy, self.categories
        return [config.image_score(names[number]) for number in category_ids.tolist()]

    def _scored(
        self,
        batches: Iterable[torch.Tensor],
        category_ids: torch.Tensor,
        steps: int | None,
        inside: Iterator[np.ndarray] | None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Map, scored map and reconstruction of each square, batch by batch."""
        filled = any(region.filled for region in self.regions.values())
        with self.progress_bar(total=len(category_ids)) as bar:
            for batch in batches:
                ids, category_ids = category_ids[: len(batch)], category_ids[len(batch) :]
                counted = _taken(inside, len(batch))
                seen = _filled(batch, counted) if filled and counted is not None else batch
                found = self.discrepancies(seen, ids, steps)
                maps, scored = self._maps(found.pixel, found.latent, ids, counted)
                bar.update(len(batch))
                yield from zip(maps, scored, to_uint8(found.reconstructed), strict=True)

    def _per_square(
        self, category_ids: torch.Tensor, sizes: Sequence[tuple[int, int]]
    ) -> torch.Tensor:
        counts = [square_count(size, self.preprocessing) for size in sizes]
        return category_ids.repeat_interleave(torch.tensor(counts))

    def _category_ids(self, category: str | Sequence[str], count: int) -> torch.Tensor:
        names = [category] * count if isinstance(category, str) else list(category)
        if not count or len(names) != count:
            raise ModelError(
                f"{count} images with {len(names)} categories; give one category for each image"
            )
        return self.unet.category_ids(names)


def _taken(inside: Iterator[np.ndarray] | None, count: int) -> np.ndarray | None:
    """What counts of the next squares, bool (N, S, S)."""
    return None if inside is None else np.stack(list(islice(inside, count)))


def _filled(squares: torch.Tensor, inside: np.ndarray) -> torch.Tensor:
    parts = zip(squares.permute(0, 2, 3, 1), inside, strict=True)
    return torch.stack([fill(*part) for part in parts]).permute(0, 3, 1, 2)
