"""Validated parameters of the method; does not import torch."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from decodiff_pipeline.errors import ConfigurationError

AUTO = "auto"  # in place of a category: category recognition
UNKNOWN = "unknown"  # recognised category of an image that belongs to none
SIZE_UNIT = 32  # downsampling by the autoencoder (8) and the network (4)
MAX_OVERLAP = 0.75  # the number of tiles grows with 1 / (1 - overlap)²
STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=STRICT)
class PreprocessConfig:
    """Geometry of the preprocessing: images to square model inputs (docs/geometry.md).

    Attributes:
        resize: Size in pixels that the image is resized to (bicubic, antialiased): both sides for
            ``stretch``, the longer one for ``letterbox``, the shorter one for ``crop`` and
            ``tile``.
        image_size: Side of a square, a multiple of 32 and at most ``resize``. Equal to ``resize``
            for ``letterbox``, and for ``stretch`` without a crop.
        fit: ``stretch``: resize without keeping the aspect ratio, then centre crop;
            ``letterbox``: keep the aspect ratio and pad to a square; ``crop``: keep the aspect
            ratio and crop the centre; ``tile``: keep the aspect ratio and cut overlapping squares
            that cover the image.
        overlap: Minimum overlap of neighbouring tiles, as a share of their side, within 0…0.75.
    """

    resize: int = 256
    image_size: int = 256
    fit: Literal["stretch", "letterbox", "crop", "tile"] = "stretch"
    overlap: float = 0.25

    def __post_init__(self) -> None:
        if self.image_size < SIZE_UNIT or self.image_size % SIZE_UNIT:
            raise ConfigurationError(
                f"preprocessing.image_size is {self.image_size}; use a multiple of 32"
            )
        if self.resize < self.image_size:
            raise ConfigurationError(
                f"preprocessing.resize is {self.resize}, smaller than image_size "
                f"{self.image_size}; make it equal (no crop) or larger (centre crop)"
            )
        if self.fit == "letterbox" and self.resize != self.image_size:
            raise ConfigurationError(
                f"preprocessing.resize is {self.resize} and image_size {self.image_size}, but "
                "fit letterbox shows the whole image: make them equal"
            )
        if not 0 <= self.overlap <= MAX_OVERLAP:
            raise ConfigurationError(
                f"preprocessing.overlap is {self.overlap}; it must lie within 0…{MAX_OVERLAP}"
            )

    @property
    def crops(self) -> bool:
        """Whether parts of an image can be cropped off."""
        return self.fit == "crop" or (self.fit == "stretch" and self.resize > self.image_size)

    def facts(self) -> dict[str, Any]:
        """The effective fields, JSON-ready; input of digests and cache keys.

        For ``stretch`` these are only ``resize`` and ``image_size``, for compatibility with
        latents and checkpoints of earlier versions.
        """
        facts: dict[str, Any] = {"resize": self.resize, "image_size": self.image_size}
        if self.fit != "stretch":
            facts["fit"] = self.fit
        if self.fit == "tile":
            facts["overlap"] = self.overlap
        return facts


@dataclass(frozen=True, config=STRICT)
class CorruptionConfig:
    """Distribution of masks and noise (paper, section 3.2). Defaults are the released code's.

    Attributes:
        patch_sizes: Side lengths of patches in latent pixels, at least 1. The last one is always
            replaced by half of the latent's side.
        patch_probabilities: One probability per size, not negative and not all 0; renormalised
            over the sizes that divide the latent.
        max_mask_ratio: Maximum share of corrupted patches; the share is drawn per image.
        max_shuffle_ratio: Maximum share of patches whose noise is another patch of the batch
            instead of Gaussian noise; the share is drawn per batch.
        device: Device that draws the Gaussian noise: ``cpu`` gives the same noise on every
            device; ``training`` is the training device, which saves the copy to a GPU.
    """

    patch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16)
    patch_probabilities: tuple[float, ...] = (0.30, 0.25, 0.20, 0.15, 0.10)
    max_mask_ratio: float = 0.7
    max_shuffle_ratio: float = 0.3
    device: Literal["cpu", "training"] = "cpu"

    def __post_init__(self) -> None:
        if len(self.patch_sizes) != len(self.patch_probabilities):
            raise ConfigurationError(
                f"{len(self.patch_sizes)} patch_sizes but "
                f"{len(self.patch_probabilities)} patch_probabilities; give one for each"
            )
        if not self.patch_sizes or min(self.patch_sizes) < 1:
            raise ConfigurationError(
                f"patch_sizes are {_listed(self.patch_sizes)}; give at least one, each at least 1"
            )
        valid = all(math.isfinite(value) and value >= 0 for value in self.patch_probabilities)
        if not valid or sum(self.patch_probabilities) <= 0:
            raise ConfigurationError(
                f"patch_probabilities are {_listed(self.patch_probabilities)}; "
                "none may be negative, and they must not all be 0"
            )
        for name in ("max_mask_ratio", "max_shuffle_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must lie within 0…1")

    def sizes_for(self, latent_size: int) -> dict[int, float]:
        """Patch sizes that divide a latent of this side, with their probabilities.

        Args:
            latent_size: Side of the square latent.

        Returns:
            Patch size → probability; the probabilities sum to 1.

        Raises:
            ConfigurationError: No size divides the latent.
        """
        sizes = (*self.patch_sizes[:-1], latent_size // 2)
        usable: dict[int, float] = {}
        for size, probability in zip(sizes, self.patch_probabilities, strict=True):
            if size >= 1 and latent_size % size == 0:
                usable[size] = usable.get(size, 0.0) + probability
        total = sum(usable.values())
        if total <= 0:
            raise ConfigurationError(
                f"none of the patch sizes {_listed(sizes)} with a probability above 0 divides a "
                f"latent of side {latent_size}; give one that does"
            )
        return {size: probability / total for size, probability in usable.items()}


@dataclass(frozen=True, config=STRICT)
class ImageScoreConfig:
    """How the score of an image is made of its maps. The defaults are the paper's.

    Attributes:
        score_from: What the image score is taken from: the fused ``map`` as in the paper, or the
            ``pixel`` or ``latent`` discrepancy alone.
        top_share: The image score is the mean of this share of the largest values of the map,
            relative to the pixels of one square; 0: the maximum, as in the paper.
        level_power: Normalisation of each value v of the map by a local level,
            ``v / (v + level**power)``, with a power within 0…1; 0: no normalisation, as in the
            paper. It compensates for differences in the reconstruction of images and their parts.
        level_sigma: The level is a Gaussian mean around v with this standard deviation, as a
            share of a square's side; 0: the mean of the whole map.
    """

    score_from: Literal["map", "latent", "pixel"] = "map"
    top_share: float = 0.0
    level_power: float = 0.0
    level_sigma: float = 0.0

    def __post_init__(self) -> None:
        self._require_shares("top_share", "level_power", "level_sigma")

    def _require_shares(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(
                    f"discrepancy.{name} is {getattr(self, name)}; it must lie within 0…1"
                )


@dataclass(frozen=True, config=STRICT)
class DiscrepancyConfig(ImageScoreConfig):
    """Clipping, smoothing and fusion of the two discrepancies, and the image score.

    The defaults are the paper's, for Stable Diffusion's latent space and images within [-1, 1].
    Other autoencoders need other limits.

    Attributes:
        latent_reduction: Reduction over the latent channels: ``mean`` of the absolute
            differences, as in the paper, or ``rms``, their root mean square.
        pixel_compared_with: What the reconstruction dec(ẑ_0) is compared with: ``encoded``, the
            decoded latent dec(z), as in the paper; or ``both``: the geometric mean of that
            discrepancy and of the one to the input image, which also contains details that the
            autoencoder loses.
        normalisation: ``none`` as in the paper, or ``position``: discrepancies are divided by the
            mean of good images at the same position. Limits are in these units.
        pixel_limit: Pixel discrepancy that is mapped to 1; larger ones are clipped.
        latent_limit: Latent discrepancy that is mapped to 1; larger ones are clipped.
        pixel_sigma: Standard deviation of the Gaussian smoothing of the pixel discrepancy, in
            image pixels; 0 for none.
        latent_sigma: The same for the latent discrepancy, in latent pixels.
        fusion: ``geometric`` √(pixel · latent) as in the paper, ``arithmetic`` mean, or one of
            the two alone.
        pixel_weight: Weight of the pixel discrepancy in the mean, within 0…1; 1/2 as in the paper.
        image_scores: Category → its image score, instead of the common one.
    """

    latent_reduction: Literal["mean", "rms"] = "mean"
    pixel_compared_with: Literal["encoded", "both"] = "encoded"
    normalisation: Literal["none", "position"] = "none"
    pixel_limit: float = 0.4
    latent_limit: float = 0.2
    pixel_sigma: float = 3.0
    latent_sigma: float = 1.0
    fusion: Literal["geometric", "arithmetic", "pixel", "latent"] = "geometric"
    pixel_weight: float = 0.5
    image_scores: dict[str, ImageScoreConfig] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("pixel_limit", "latent_limit"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigurationError(
                    f"discrepancy.{name} is {value}; it must be positive and finite"
                )
        for name in ("pixel_sigma", "latent_sigma"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigurationError(
                    f"discrepancy.{name} is {value}; it must be 0 (no smoothing) or positive"
                )
        self._require_shares("pixel_weight", "top_share", "level_power", "level_sigma")

    def image_score(self, category: str) -> ImageScoreConfig:
        """The image score of a category."""
        common = {field.name: getattr(self, field.name) for field in fields(ImageScoreConfig)}
        return self.image_scores.get(category, ImageScoreConfig(**common))

    def facts(self) -> dict[str, Any]:
        """The fields, JSON-ready; stored with a model and input of digests.

        Newer fields are left out at their default, for compatibility with earlier models.
        """
        newer = {
            "level_power": 0.0,
            "level_sigma": 0.0,
            "image_scores": {},
            "pixel_compared_with": "encoded",
        }
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in newer or value != newer[name]
        }


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(map(str, values)) or "an empty list"


def require_places(discrepancy: DiscrepancyConfig, preprocess: PreprocessConfig) -> None:
    """Check that normalisation by position is not combined with tiling.

    Raises:
        ConfigurationError: It is.
    """
    if discrepancy.normalisation == "position" and preprocess.fit == "tile":
        raise ConfigurationError(
            "scoring.discrepancy.normalisation is 'position', but with preprocessing.fit 'tile' "
            "a position shows another part of the object in every tile; set the former to none"
        )
