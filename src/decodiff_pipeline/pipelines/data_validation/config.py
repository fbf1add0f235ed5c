"""Parameters of data validation."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from decodiff_pipeline.deco.colour import MODES
from decodiff_pipeline.text import Text


class ValidationConfig(BaseModel):
    """Limits of the checks of the raw images (`conf/*/parameters_validation.yml`).

    Attributes:
        min_train_images: Minimum number of good train images of a category.
        min_held_out_images: Number of good val or calibration images of a category below which
            there is a warning.
        min_side: Minimum width and height in pixels.
        max_side: Maximum width and height in pixels.
        modes: Accepted Pillow modes; by default all modes that can be converted.
        min_contrast: Minimum difference of the darkest and the brightest grey level (0 to 255) of
            a train, val or calibration image, without the 0.1 % darkest and brightest pixels.
        max_mask_share: Share of defective pixels in an image above which there is a warning.
        near_duplicate_bits: A test image is reported as a near-duplicate if its difference hash
            (256 bits) differs from that of a train, val or calibration image in at most this
            many bits.
        html: Path of the report, for error messages.
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
