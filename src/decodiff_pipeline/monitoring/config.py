"""Parameters of the drift monitoring and of its reference."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from decodiff_pipeline.text import Text


class ReferenceConfig(BaseModel):
    """The reference of the drift monitoring, made from good images.

    Attributes:
        components: Number of principal components of the latents that are compared.
        max_images: Largest number of held-out images per category in the reference, and of
            training images per category for the principal components.
        batch_size: Images per batch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    components: int = Field(default=8, ge=1, le=64)
    max_images: int = Field(default=500, ge=10)
    batch_size: int = Field(default=16, ge=1)


class MonitoringConfig(BaseModel):
    """The recent images, and the conditions of a drift alarm.

    Attributes:
        source: Folder of images, table (CSV or parquet), or request log (JSON Lines file, or a
            folder of them).
        model: Folder with ``pipeline`` and ``monitoring_reference.json``.
        category: Category of all images; ``None`` for the table's column, or the first folder of
            a path.
        last_days: Days of a request log before its newest line; ``None`` for all.
        false_alarm_rate: Probability of an alarm in a run without drift (family-wise error rate).
        min_distance: Smallest Kolmogorov-Smirnov distance of an alarm. Replacing a share of the
            images changes the distance by at most that share.
        min_images: Smallest number of recent images of a category that is tested.
        min_reference: Smallest number of reference images of a category that is tested.
        max_images: Largest number of images per category, sampled at random.
        unusual_images: Number of the most unusual images in the report.
        batch_size: Images per batch.
        seed: Seed of the sampling.
        fail_on_drift: Whether an alarm ends the run with a non-zero exit code.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Text | None = None
    model: Text | None = None
    category: Text | None = None
    last_days: float | None = Field(default=None, gt=0)
    false_alarm_rate: float = Field(default=0.01, gt=0, lt=1)
    min_distance: float = Field(default=0.15, ge=0, lt=1)
    min_images: int = Field(default=20, ge=2)
    min_reference: int = Field(default=10, ge=2)
    max_images: int = Field(default=1000, ge=2)
    unusual_images: int = Field(default=12, ge=0, le=200)
    batch_size: int = Field(default=16, ge=1)
    seed: int = Field(default=0, ge=0)
    fail_on_drift: bool = False
