"""Parameters of the registration, the promotion and the rollback."""

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

# MLflow keeps these for versions: models:/name@latest, models:/name@v3.
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
        dataset: Name of the data set, kept as a tag of the version.
        model_name: Name in the model registry; a new version is added to it.
        alias: Alias that moves to the version just registered, for the promotion to find; ``null``
            sets none. ``champion`` is the promotion's to give.
        max_images: Most images that the served model takes in one request.
        max_pixels: Most pixels (width times height) of one image in a request.
        batch_size: Images the served model computes at once.
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
    """What is asked of a version beside another model, on the same test images.

    Attributes:
        improvement: Least difference of the mean over the common categories, by metric; below 0
            it is a loss that is put up with.
        regression: Largest loss in any one category, by metric.
        by_category: ``regression`` of single categories: ``{category: {metric: loss}}``.
        within_noise: What happens where the paired bootstrap cannot tell a difference from noise.
            ``pass``: a loss beyond ``regression`` counts only where its interval excludes 0, and a
            measured improvement is enough. ``refuse``: the interval's lower end must keep to
            ``regression`` and ``improvement``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    improvement: dict[Metric, Change] = {}
    regression: dict[Metric, Share] = {}
    by_category: dict[Text, dict[Metric, Share]] = {}
    within_noise: Literal["pass", "refuse"] = "pass"

    def metrics(self) -> set[str]:
        """Every metric that is asked for."""
        single = (set(limits) for limits in self.by_category.values())
        return set(self.improvement).union(self.regression, *single)

    def allowed(self, category: str) -> dict[Metric, float]:
        """Largest loss by metric in a category."""
        return self.regression | self.by_category.get(category, {})


class ServingGates(BaseModel):
    """How the registered version must answer in a process of its own.

    Attributes:
        images: Real test images that the version answers, one a request.
        tolerance: Largest difference from the scores of the evaluation.
        latency_ms: Largest median time of one request in milliseconds; ``None`` for no limit.
        size_mb: Largest size of the logged model in 10⁶ bytes; ``None`` for no limit.
        timeout_s: Seconds after which the process counts as hanging.
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
        challenger: Alias or number of the version that is judged.
        override_reason: Promotes in spite of failed gates, with this reason in the log.
        fail_on_refusal: Whether a refusal ends the run with exit code 1.
        floors: Least value by metric in every category. ``recall`` is the share of defective test
            images at or above the threshold.
        category_floors: ``floors`` of single categories: ``{category: {metric: value}}``.
        champion: What is asked beside the champion.
        baseline: What is asked beside the PCA; image metrics alone.
        min_calibration_images: Least number of images that the threshold of a category is fitted
            to.
        false_positive_rate: Largest false-positive rate that the calibration images of a category
            may be able to hold: n of them hold 1 / (n + 1) at best. ``None`` takes the rate that
            the thresholds were fitted for (``evaluation.false_positive_rate``).
        false_positive_significance: Chance that a version whose thresholds hold their nominal rate
            is refused for its false positives, over all categories together.
        may_lose: Categories of the champion that the version need not know.
        unloadable_champion: ``refuse`` leaves a champion in place that cannot be loaded, since
            nothing can be compared with it; ``judge_alone`` judges as at a first promotion.
        resamples: Draws of the bootstrap.
        confidence: Confidence level of the bootstrap's intervals.
        serving: The serving check.
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
            raise ValueError(f"baseline: {pixel[0]} is of pixels; name image metrics alone")
        return self

    def least(self, category: str) -> dict[FloorMetric, float]:
        """Least value by metric in a category."""
        return self.floors | self.category_floors.get(category, {})

    def needs_pixels(self) -> bool:
        """Whether any gate is about pixels."""
        single = (set(limits) for limits in self.category_floors.values())
        named = set(self.floors).union(self.champion.metrics(), *single)
        return any(name.startswith("pixel") for name in named)


class RollbackConfig(BaseModel):
    """Parameters of the rollback.

    Attributes:
        reason: Why the champion goes; it is logged, and the version is not promoted again without
            an override.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Sentence | None = None
