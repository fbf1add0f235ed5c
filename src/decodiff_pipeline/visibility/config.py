"""Parameters of the visibility check."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class VisibilityConfig(BaseModel):
    """The measurements of the visibility check, and the limits of its warnings.

    Attributes:
        images: Largest number of good val images per category.
        sizes: Sides of the synthetic defects in latent cells, ascending (1 is 8 pixels of the
            model's input for the usual autoencoders).
        contrasts: Contrasts of the synthetic defects in grey levels (0…255).
        colour_contrast: Contrast of the synthetic defects that change only the colour, in levels
            of the channel that changes most; for images with colour.
        contrast: One of ``contrasts``, for the message in the terminal.
        min_snr: Smallest signal-to-noise ratio of a visible defect.
        min_share: Smallest share of the reconstructed difference of a visible defect.
        min_psnr: Mean PSNR in dB below which there is a warning.
        min_saturation: Share of the saturation kept below which there is a warning, for images
            with colour.
        min_colour: Smallest difference between the channels of an image's most colourful 1 % of
            the pixels with which it counts as a colour image, in levels (0…255).
        max_cut_off: Largest share of an image outside the model's input without a warning.
        masks: Largest number of masks per category whose sizes are measured.
        pictures: Images of each category in the report.
        batch_size: Images per batch.
        html: Path of the report, for messages.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int = Field(default=12, ge=1, le=32)
    sizes: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
    contrasts: tuple[int, ...] = (16, 32, 64)
    colour_contrast: int = Field(default=64, ge=1, le=255)
    contrast: int = 32
    min_snr: float = Field(default=3.0, gt=0)
    min_share: float = Field(default=0.25, ge=0, le=1)
    min_psnr: float = Field(default=22.0, ge=0)
    min_saturation: float = Field(default=0.7, ge=0, le=1)
    min_colour: int = Field(default=20, ge=1, le=255)
    max_cut_off: float = Field(default=0.25, ge=0, le=1)
    masks: int = Field(default=64, ge=0)
    pictures: int = Field(default=3, ge=0, le=32)
    batch_size: int = Field(default=8, ge=1)
    html: str = "the visibility report"

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if not self.sizes or min(self.sizes) <= 0 or list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"sizes are {self.sizes}; give positive ones, each once, ascending")
        if not self.contrasts or not all(0 < value <= 255 for value in self.contrasts):  # noqa: PLR2004
            raise ValueError(f"contrasts are {self.contrasts}; give some within 1…255")
        if self.contrast not in self.contrasts:
            raise ValueError(f"contrast {self.contrast} is none of contrasts {self.contrasts}")
        return self
