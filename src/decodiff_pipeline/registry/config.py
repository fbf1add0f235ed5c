"""Parameters of registration, promotion and rollback."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from decodiff_pipeline.text import Text, as_text

# MLflow reserves these aliases: models:/name@latest, models:/name@v3.
RESERVED_ALIAS = re.compile(r"latest|[vV]\d+")

ImageMetric = Literal["image_auroc", "image_ap", "image_f1max"]
Metric = Literal[
    ImageMetric, "pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro", "pixel_aupro_5"
]
FloorMetric = Literal[Metric, "recall"]
Share = Annotated[float, Field(ge=0, le=1)]
Change = Annotated[float, Field(ge=-1, le=1)]
Sentence = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=3), BeforeValidator(as_text)
]


class RegistrationConfig(BaseModel):
    """Parameters of the registration (``conf/*/parameters_registration.yml``).

    Attributes:
        dataset: Name of the data set, stored as a tag of the version.
        model_name: Name of the registered model to which a version is added.
        alias: Alias that the registration sets to the new version and the promotion reads;
            ``null`` sets none. Only the promotion sets ``champion``.
        max_images: Largest number of images in one request to the served model.
        max_pixels: Largest number of pixels (width times height) of one image in a request.
        batch_size: Images per batch of the served model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    dataset: Text | None = None
    model_name: Text = "decodiff"
    alias: Text | None = "challenger"
    max_images: int = Field(default=64, ge=1)
    max_pixels: int = Field(default=50_000_000, ge=1)
    batch_size: int = Field(default=16, ge=1)

    @field_validator("model_name")
    @classmethod
    def _fits_into_a_uri(cls, name: str) -> str:
        if not name.strip() or set(name) & set("/:@"):
            raise ValueError("use a name without '/', ':' and '@'")
        return name

    @field_validator("alias")
    @classmethod
    def _is_free(cls, alias: str | None) -> str | None:
        if alias is None:
            return None
        if not re.fullmatch(r"[\w-]+", alias) or RESERVED_ALIAS.fullmatch(alias):
            raise ValueError("use letters, digits, '-' and '_', and neither 'latest' nor 'v1'")
        return alias


class ComparisonGates(BaseModel):
    """Limits for the comparison of a version with another model on the same test images.

    Attributes:
        improvement: Smallest difference of the mean over the common categories, by metric; a
            negative value allows a loss.
        regression: Largest loss in a single category, by metric.
        by_category: ``regression`` of single categories: ``{category: {metric: loss}}``.
        within_noise: How a difference within the paired bootstrap's interval is judged.
            ``pass``: a loss beyond ``regression`` fails only if its interval excludes 0, and the
            measured improvement counts. ``refuse``: the interval's lower limit must satisfy
            ``regression`` and ``improvement``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    improvement: dict[Metric, Change] = {}
    regression: dict[Metric, Share] = {}
    by_category: dict[Text, dict[Metric, Share]] = {}
    within_noise: Literal["pass", "refuse"] = "pass"

    def metrics(self) -> set[str]:
        """Metrics that have a limit."""
        single = (set(limits) for limits in self.by_category.values())
        return set(self.improvement).union(self.regression, *single)

    def allowed(self, category: str) -> dict[Metric, float]:
        """Largest loss by metric in a category."""
        return self.regression | self.by_category.get(category, {})


class ServingGates(BaseModel):
    """Limits for the registered version served in a separate process.

    Attributes:
        images: Number of test images, one per request.
        tolerance: Largest difference from the scores of the evaluation.
        latency_ms: Largest median time of a request in milliseconds; ``None`` for no limit.
        size_mb: Largest size of the logged model in 10⁶ bytes; ``None`` for no limit.
        timeout_s: Time limit of the process in seconds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int = Field(default=12, ge=2)
    tolerance: float = Field(default=0.001, ge=0)
    latency_ms: float | None = Field(default=2000, gt=0)
    size_mb: float | None = Field(default=2500, gt=0)
    timeout_s: float = Field(default=900, gt=0)


class PromotionConfig(BaseModel):
    """Parameters of the promotion (``conf/*/parameters_promotion.yml``).

    Attributes:
        challenger: Alias or number of the version to judge.
        override_reason: Reason for promoting despite failed gates; stored in the audit log.
        fail_on_refusal: Whether a refusal ends the run with exit code 1.
        floors: Smallest value by metric in every category. ``recall`` is the share of defective
            test images at or above the threshold.
        category_floors: ``floors`` of single categories: ``{category: {metric: value}}``.
        champion: Limits for the comparison with the champion.
        baseline: Limits for the comparison with the PCA baseline; image metrics only.
        min_calibration_images: Smallest number of images to which a category's threshold is
            fitted.
        false_positive_rate: Largest allowed value of the smallest false-positive rate that a
            category's n calibration images can guarantee, 1 / (n + 1). ``None`` takes the rate for
            which the thresholds were fitted (``evaluation.false_positive_rate``).
        false_positive_significance: Probability that a version whose thresholds have their nominal
            rate is refused for its false positives, over all categories.
        may_lose: Categories of the champion that the version need not know.
        unloadable_champion: For a champion that cannot be loaded, and so cannot be compared:
            ``refuse`` keeps it; ``judge_alone`` judges the version as at a first promotion.
        resamples: Number of bootstrap resamples.
        confidence: Confidence level of the bootstrap intervals.
        serving: Limits of the serving check.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    challenger: Text = Field(default="challenger", min_length=1)
    override_reason: Sentence | None = None
    fail_on_refusal: bool = False
    floors: dict[FloorMetric, Share] = {"image_auroc": 0.6, "recall": 0.25}
    category_floors: dict[Text, dict[FloorMetric, Share]] = {}
    champion: ComparisonGates = ComparisonGates(
        improvement={"image_auroc": 0.0}, regression={"image_auroc": 0.01, "pixel_aupro": 0.02}
    )
    baseline: ComparisonGates = ComparisonGates(
        improvement={"image_auroc": 0.001}, regression={"image_auroc": 0.0}
    )
    min_calibration_images: int = Field(default=10, ge=0)
    false_positive_rate: float | None = Field(default=None, gt=0, le=1)
    false_positive_significance: float = Field(default=0.01, gt=0, lt=1)
    may_lose: tuple[Text, ...] = ()
    unloadable_champion: Literal["judge_alone", "refuse"] = "refuse"
    resamples: int = Field(default=1000, ge=100)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    serving: ServingGates = ServingGates()

    @model_validator(mode="after")
    def _baseline_is_of_images(self) -> PromotionConfig:
        pixel = sorted(name for name in self.baseline.metrics() if name.startswith("pixel"))
        if pixel:
            raise ValueError(f"baseline: {pixel[0]} is a pixel metric; name image metrics alone")
        return self

    def least(self, category: str) -> dict[FloorMetric, float]:
        """Smallest value by metric in a category."""
        return self.floors | self.category_floors.get(category, {})

    def needs_pixels(self) -> bool:
        """Whether any gate uses a pixel metric."""
        single = (set(limits) for limits in self.category_floors.values())
        metrics = set(self.floors).union(self.champion.metrics(), *single)
        return any(name.startswith("pixel") for name in metrics)


class RollbackConfig(BaseModel):
    """Parameters of the rollback.

    Attributes:
        reason: Why the champion is withdrawn; stored in the audit log. The version is not promoted
            again without an override.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Sentence | None = None
