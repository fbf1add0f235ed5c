"""Parameters of the visibility check."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class VisibilityConfig(BaseModel):
    """What is measured, and from which figures on there is a warning.

    Attributes:
        images: Good val images of each category that are looked at, at most.
        sizes: Sides of the synthetic defects in latent cells, ascending (1 is 8 pixels of the
            model's input for the usual autoencoders).
        contrasts: Contrasts of the synthetic defects in grey levels of 255.
        colour_contrast: Strength of the defects of equal brightness and other colour, in levels
            of the channel that changes most; they are drawn where images have colour.
        contrast: The one of ``contrasts`` that the answer in the terminal is about.
        min_snr: Signal-to-noise ratio from which on a defect counts as visible.
        min_share: Share of a defect's difference that must survive as well.
        min_psnr: Mean PSNR in dB below which a warning says so.
        min_saturation: Share of saturation kept below which a warning says so, where images have
            colour.
        min_colour: Levels between the channels of an image's most colourful hundredth from which
            on it has colour.
        max_cut_off: Share of an image that may lie outside of what the model sees.
        masks: Masks of each category whose sizes are measured, at most.
        pictures: Images of each category that the report shows.
        batch_size: Images encoded at once.
        html: Where the report goes, for the message that points there.
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
