"""The limits that the raw images are checked against."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from decodiff_pipeline.deco.colour import MODES
from decodiff_pipeline.text import Text


class ValidationConfig(BaseModel):
    """What passes (`conf/*/parameters_validation.yml`).

    Attributes:
        min_train_images: Good train images that a category needs.
        min_held_out_images: Good images below which val and calibration draw a warning.
        min_side: Smallest width and height in pixels.
        max_side: Largest width and height in pixels.
        modes: Pillow modes that pass; by default all that are converted.
        min_contrast: Levels of 255 that must lie between the darkest and the brightest pixels of a
            train, val or calibration image, a thousandth of either aside.
        max_mask_share: Share of a picture from which on its mask draws a warning.
        near_duplicate_bits: Test images within this many of the 256 bits of a train image's
            difference hash are reported.
        html: Where the report goes, for the message that points there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_train_images: int = Field(default=20, ge=1)
    min_held_out_images: int = Field(default=10, ge=0)
    min_side: int = Field(default=32, ge=1)
    max_side: int = Field(default=20_000, ge=1)
    min_contrast: int = Field(default=4, ge=0, le=255)
    max_mask_share: float = Field(default=0.5, gt=0, le=1)
    modes: tuple[Text, ...] = tuple(sorted(MODES))
    near_duplicate_bits: int = Field(default=12, ge=0, le=256)
    html: Text = "the validation report"

    @model_validator(mode="after")
    def _some_size_passes(self) -> ValidationConfig:
        if self.min_side > self.max_side:
            raise ValueError(f"min_side {self.min_side} is above max_side {self.max_side}")
        return self
