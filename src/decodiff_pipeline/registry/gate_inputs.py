"""What the verdict on a new version follows from, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from decodiff_pipeline.serving.serving_check import ServingResult

RECALL = "recall"  # of defective test images, at the threshold that is served


@dataclass(frozen=True)
class PairedDifference:
    """A difference of two models on the same images.

    Attributes:
        value: Of the challenger.
        reference: Of the other model.
        difference: Challenger less the other.
        low: Lower end of its bootstrap interval.
        high: Upper end of it.
    """

    value: float
    reference: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class ModelComparison:
    """The challenger beside another model: by category and metric, and by metric in the mean."""

    categories: Mapping[str, Mapping[str, PairedDifference]]
    mean: Mapping[str, PairedDifference]


@dataclass(frozen=True)
class FalsePositives:
    """What the threshold of a category did on good test images.

    Attributes:
        flagged: Good test images at or above the threshold.
        good: Good test images.
        promised: Expected share of flagged ones, at most.
        n_calibration: Images that the threshold was fitted to.
    """

    flagged: int
    good: int
    promised: float
    n_calibration: int


@dataclass(frozen=True)
class ThresholdFit:
    """What the threshold of a category was fitted to.

    Attributes:
        n_calibration: Images that the threshold was fitted to.
        promised: Expected share of good images at or above it, at most; ``None`` without one.
        target: Rate that was asked for; ``None`` where the version does not say.
    """

    n_calibration: int
    promised: float | None
    target: float | None


@dataclass(frozen=True)
class GateInputs:
    """Everything that the verdict follows from.

    Attributes:
        serving: From the fresh process.
        metrics: Of the challenger, by category.
        thresholds: Of the challenger, by category.
        false_positives: By category; where there is no threshold or no good image, absent.
        baseline: The challenger beside the PCA.
        champion: The challenger beside the champion; ``None`` where there is none to compare with.
        champion_error: Why the champion there is cannot be loaded, as a sentence.
        lost: Categories of the champion that the challenger does not know.
        rolled_back: Why this version was rolled back once.
    """

    serving: ServingResult
    metrics: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    thresholds: Mapping[str, ThresholdFit] = field(default_factory=dict)
    false_positives: Mapping[str, FalsePositives] = field(default_factory=dict)
    baseline: ModelComparison | None = None
    champion: ModelComparison | None = None
    champion_error: str | None = None
    lost: tuple[str, ...] = ()
    rolled_back: str | None = None
