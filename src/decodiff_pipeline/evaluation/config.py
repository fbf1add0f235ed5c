"""Parameters of the evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Protocol = Literal["strict", "released"]


class EvaluationConfig(BaseModel):
    """How a trained model is scored, judged and shown (`conf/*/parameters_evaluation.yml`).

    Attributes:
        protocol: ``strict``: masks averaged over each new pixel's area and cut at one half, a
            region that would vanish keeps its strongest pixel; labels of the whole images; exact
            AUPRO. ``released``, to compare with published tables alone: masks resized (bicubic)
            and every pixel above zero a defect; an image without one in the crop is good; AUPRO
            by 200 thresholds.
        batch_size: Images scored at once.
        num_inference_steps: Reverse steps; ``None`` for those the model was saved with.
        false_positive_rate: Share of good images that the thresholds may flag.
        aupro_limit: False-positive rate of pixels up to which AUPRO integrates.
        gallery_size: Images of each group (missed, detected, good) in a category's figure.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    protocol: Protocol = "strict"
    batch_size: int = Field(default=16, ge=1)
    num_inference_steps: Literal[2, 3, 4, 5, 10] | None = None
    false_positive_rate: float = Field(default=0.05, gt=0, lt=1)
    aupro_limit: float = Field(default=0.3, gt=0, le=1)
    gallery_size: int = Field(default=3, ge=1, le=20)
