"""Parameters of the monitoring and of the reference it compares with."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from decodiff_pipeline.text import Text


class ReferenceConfig(BaseModel):
    """What is kept of good images beside the model.

    Attributes:
        components: Principal axes of the latents that are compared one by one.
        max_images: Most held-out images a category whose values are kept, and most training
            images that the axes are fitted to.
        batch_size: Images computed at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    components: int = Field(default=8, ge=1, le=64)
    max_images: int = Field(default=500, ge=10)
    batch_size: int = Field(default=16, ge=1)


class MonitoringConfig(BaseModel):
    """Which images are compared with the reference, and when that is an alarm.

    Attributes:
        source: Folder of images, table (CSV or parquet), or request log (JSON lines, or a folder
            of them); the catalog reads it.
        model: Folder with ``pipeline`` and ``monitoring_reference.json``; the catalog reads it.
        category: Category of all images; ``None`` for the table's column, or the first folder of
            a path.
        last_days: Days of a request log before its newest line; ``None`` for all.
        false_alarm_rate: Chance that a run in which nothing changed ends in an alarm.
        min_distance: Least Kolmogorov-Smirnov distance of an alarm, however certain it is. Mixing
            a share of other images in moves the distance by no more than that share.
        min_images: Fewer recent images of a category are too few to say anything.
        min_reference: The same for the reference.
        max_images: Most images a category that are looked at, drawn at random.
        unusual_images: Most unusual images that the report shows.
        batch_size: Images computed at once.
        seed: Seed of the draw.
        fail_on_drift: Whether an alarm ends the run with an exit code that is not 0.
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
