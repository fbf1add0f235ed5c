"""Parameters of the scoring, and the images that it is fitted to."""

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
    """Parameters of anomaly maps and scores.

    Attributes:
        num_inference_steps: Reverse steps.
        reverse_step: How the deviation enters a reverse step: ``constant`` as in the released
            code; ``carried`` is an experiment (docs/method.md).
        fit: What is fitted to val images: ``limits``, the clip limits; ``weight``, also the weight
            of the two discrepancies; ``all``, also each category's image score. The rest is taken
            from ``discrepancy``, whose default is the paper's (limits for Stable Diffusion's
            autoencoder); ``none`` fits nothing.
        limit_quantile: Quantile of the val images' discrepancies from which a limit is fitted.
        limit_factor: A fitted limit is the quantile times this factor.
        discrepancy: Smoothing and fusion; limits, weight and image score that are not fitted. A
            weight or image score is fitted only if it is clearly better than this one on
            synthetic defects.
        usual_components: Number of principal components, per category, of the deviations in good
            train images. They are removed from each deviation. 0 for none, as in the paper.
        bfloat16: Run autoencoder and network in bfloat16, here and wherever the model is used;
            about twice as fast if the CPU or GPU supports it.
        false_refusals: Share of good images that category recognition may refuse as unknown;
            ``None``: the model cannot recognise categories.
        batch_size: Val images per batch.
        regions: Category → the region of its images that counts (docs/regions.md). Without a
            region the whole image counts.
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
        """Whether the scoring or the reference is fitted."""
        return self.fit != "none" or self.discrepancy.normalisation == "position"


def images_to_fit(manifest: pd.DataFrame, categories: Collection[str]) -> pd.DataFrame:
    """The manifest rows of the good val images that the scoring is fitted to.

    Args:
        categories: The categories that the model knows.

    Raises:
        DataError: There are no such images.
    """
    rows = manifest[(manifest["split"] == "val") & (manifest["label"] == "good")]
    rows = rows[rows["category"].isin(categories)]
    if rows.empty:
        raise DataError(
            "there are no good val images to fit the scoring on; raise data.val_fraction, or set "
            "scoring.fit to none and scoring.discrepancy.normalisation to none"
        )
    return rows
