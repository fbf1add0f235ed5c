"""Parameters of the scoring, and the images that it is fitted on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from decodiff_pipeline.data.regions import RegionConfig
from decodiff_pipeline.deco.config import DiscrepancyConfig
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.text import Text

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd


class ScoringConfig(BaseModel):
    """How maps and scores are made from discrepancies.

    Attributes:
        num_inference_steps: Reverse steps.
        reverse_step: What becomes of the deviation between two reverse steps: ``constant`` as in
            the released code; ``carried`` is an experiment (docs/method.md).
        fit: What is fitted on val images: ``limits``, the clip limits, in whatever units the
            autoencoder has; ``weight``, these and the weight of the two discrepancies;
            ``all``, these and each category's image score. What is not fitted is taken from
            ``discrepancy`` (by default the paper's, whose limits fit Stable Diffusion's
            autoencoder); ``none`` takes all of it from there.
        limit_quantile: Quantile of the val images' discrepancies that a fitted limit is a
            multiple of.
        limit_factor: Factor from that quantile to the limit.
        discrepancy: Smoothing and fusion; limits, weight and image score where they are not
            fitted. A fitted weight or image score differs from that here only where it is
            clearly better on synthetic defects.
        usual_components: Principal components of good train images' deviations, for each category,
            that are removed from a deviation; 0 for none, as in the paper.
        bfloat16: Run autoencoder and network in bfloat16, here and wherever the model is used;
            about twice as fast where the processor or the GPU has it.
        false_refusals: Share of good images that may be refused as of no category where the
            category is to be recognised; ``None``: the model cannot recognise categories.
        batch_size: Val images scored at once.
        regions: Category → the part of its images that counts (docs/regions.md); everything where
            there is none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_inference_steps: Literal[2, 3, 4, 5, 10] = 5
    reverse_step: Literal["constant", "carried"] = "constant"
    fit: Literal["none", "limits", "weight", "all"] = "all"
    limit_quantile: float = Field(default=0.99, gt=0, le=1)
    limit_factor: float = Field(default=3.0, gt=0, allow_inf_nan=False)
    discrepancy: DiscrepancyConfig = DiscrepancyConfig()
    usual_components: int = Field(default=0, ge=0, le=1024)
    bfloat16: bool = False
    false_refusals: float | None = Field(default=0.05, gt=0, lt=1)
    batch_size: int = Field(default=32, ge=1)
    regions: dict[Text, RegionConfig] = Field(
        default_factory=dict, exclude_if=lambda regions: not regions
    )

    @property
    def looks_at_images(self) -> bool:
        """Whether anything is fitted, scoring or reference."""
        return self.fit != "none" or self.discrepancy.normalisation == "position"


def images_to_fit(manifest: pd.DataFrame, categories: Collection[str]) -> pd.DataFrame:
    """The rows of the good val images that a model's scoring is fitted on.

    Args:
        categories: Those the model knows.

    Raises:
        DataError: There are none.
    """
    rows = manifest[(manifest["split"] == "val") & (manifest["label"] == "good")]
    rows = rows[rows["category"].isin(categories)]
    if rows.empty:
        raise DataError(
            "there are no good val images to fit the scoring on; raise data.val_fraction, or set "
            "scoring.fit to none and scoring.discrepancy.normalisation to none"
        )
    return rows
