"""Parameters of the evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from decodiff_pipeline.text import Text

Protocol = Literal["strict", "released"]
Resolution = Literal["model", "native"]


class CostConfig(BaseModel):
    """Costs of wrong decisions, in any unit.

    Attributes:
        miss: Cost of a defective image that is not flagged.
        false_alarm: Cost of a good image that is flagged.
        defective_share: Share of defective images in production.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    miss: float = Field(gt=0, allow_inf_nan=False)
    false_alarm: float = Field(gt=0, allow_inf_nan=False)
    defective_share: float = Field(gt=0, lt=1)


class EvaluationConfig(BaseModel):
    """Parameters of the evaluation (`conf/*/parameters_evaluation.yml`).

    Attributes:
        protocol: ``strict``: masks resized by area averaging and thresholded at one half, with at
            least one pixel per region; labels of whole images; exact AUPRO. ``released``, only for
            comparison with published tables: masks resized (bicubic) with every pixel above zero
            defective; images without a defect in the crop are good; AUPRO with 200 thresholds.
        resolution: Resolution of the pixel metrics. ``model``: masks are resized to the model's
            maps; ``native``: maps are resized to the original images. Pixels that the model does
            not see are left out of both.
        batch_size: Images per batch.
        num_inference_steps: Reverse steps; ``None`` for the model's own.
        false_positive_rate: Target share of good images that the thresholds flag.
        costs: Costs of wrong decisions. With them, image thresholds minimise the expected cost
            instead, for categories with defective test images, whose labels they are fitted to.
            ``None``: thresholds keep ``false_positive_rate``.
        aupro_limit: Pixel false-positive rate up to which AUPRO integrates.
        confidence: Nominal coverage of the confidence intervals.
        resamples: Bootstrap resamples of the test images, for intervals and comparisons.
        compare_with: ``champion`` (the registry's alias) or a Git revision, whose evaluation the
            new one is compared with; ``None`` for none.
        gallery_size: Images of each group (missed, detected, good) in a category's figure.
        near_duplicate_bits: Number of the difference hash's 256 bits that may differ between a
            test image and its near-duplicate outside test; null to search for none.
        review_images: Number of most unusual good training images of a category that are listed
            for review; 0 to score none.
        review_limit: Number of training images of a category that are scored for the review,
            selected by their digests; null for all.
        synthetic_images: Maximum number of good images, of a category without masks, with a
            synthetic defect to measure localisation; 0 for none.
        gallery_images: Maximum number of test images, of all categories, in the report's gallery.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    protocol: Protocol = "strict"
    resolution: Resolution = "model"
    batch_size: int = Field(default=16, ge=1)
    num_inference_steps: Literal[2, 3, 4, 5, 10] | None = None
    false_positive_rate: float = Field(default=0.05, gt=0, lt=1)
    costs: CostConfig | None = None
    aupro_limit: float = Field(default=0.3, gt=0, le=1)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    resamples: int = Field(default=1000, ge=100)
    compare_with: Text | None = Field(default=None, min_length=1)
    gallery_size: int = Field(default=3, ge=1, le=20)
    near_duplicate_bits: int | None = Field(default=12, ge=0, le=256)
    review_images: int = Field(default=12, ge=0)
    review_limit: int | None = Field(default=None, ge=1)
    synthetic_images: int = Field(default=64, ge=0)
    gallery_images: int = Field(default=500, ge=0)
