"""Parameters of the evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from decodiff_pipeline.text import Text

Protocol = Literal["strict", "released"]
Resolution = Literal["model", "native"]


class CostConfig(BaseModel):
    """What wrong decisions cost, in any unit.

    Attributes:
        miss: Of a defective image that passes.
        false_alarm: Of a good image that is flagged.
        defective_share: Of the images in use.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    miss: float = Field(gt=0, allow_inf_nan=False)
    false_alarm: float = Field(gt=0, allow_inf_nan=False)
    defective_share: float = Field(gt=0, lt=1)


class EvaluationConfig(BaseModel):
    """How a trained model is scored, judged and shown (`conf/*/parameters_evaluation.yml`).

    Attributes:
        protocol: ``strict``: masks averaged over each new pixel's area and cut at one half, a
            region that would vanish keeps its strongest pixel; labels of the whole images; exact
            AUPRO. ``released``, to compare with published tables alone: masks resized (bicubic)
            and every pixel above zero a defect; an image without one in the crop is good; AUPRO
            by 200 thresholds.
        resolution: Where pixels are measured: ``model``, maps as the model gives them against
            masks of their size; ``native``, maps brought to the original images' pixels against
            the masks as they are. What the model does not see is left out of both.
        batch_size: Images scored at once.
        num_inference_steps: Reverse steps; ``None`` for those the model was saved with.
        false_positive_rate: Share of good images that the thresholds may flag.
        costs: Image thresholds of the least expected cost, in place of that rate, of categories
            with defective test images: they are fitted on labels then. ``None``: by the rate.
        aupro_limit: False-positive rate of pixels up to which AUPRO integrates.
        confidence: Nominal coverage of the intervals beside the metrics.
        resamples: Bootstrap draws of the test images, for intervals and comparisons.
        compare_with: ``champion`` (the registry's alias) or a Git revision, whose evaluation the
            new one is compared with; ``None`` for none.
        gallery_size: Images of each group (missed, detected, good) in a category's figure.
        near_duplicate_bits: Of the 256 bits of the difference hash, how many may differ between a
            test image and its near-duplicate outside test; null not to look for any.
        review_images: Of the good training images of a category, how many of the most unusual are
            listed for review; 0 to score none.
        review_limit: Training images of a category that are scored for that, chosen evenly by
            their digests; null for all.
        synthetic_images: Good images of a category without masks that are given a synthetic
            defect to measure localisation by, at most; 0 for none.
        gallery_images: Test images of all categories in the report's gallery at most.
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
