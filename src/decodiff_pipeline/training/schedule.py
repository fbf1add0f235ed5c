"""Learning rate as a pure function of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decodiff_pipeline.training.config import TrainingConfig


def scheduled_rate(step: int, total: int, config: TrainingConfig) -> float:
    """:func:`learning_rate` with the parameters of a training."""
    return learning_rate(
        step,
        total,
        peak=config.learning_rate,
        warmup_steps=math.ceil(config.warmup * total),
        final=config.final_learning_rate,
        cosine_length=config.cosine_length,
    )


def learning_rate(
    step: int,
    total: int,
    *,
    peak: float,
    warmup_steps: int,
    final: float = 0.0,
    cosine_length: float = 1.0,
) -> float:
    """Linear warm-up, then a half cosine.

    Args:
        step: Optimiser steps done so far, 0…total-1.
        warmup_steps: Steps of the warm-up; the rate of step 0 is above 0.
        final: Rate at the end of the cosine, as a share of the peak.
        cosine_length: Length of the cosine as a multiple of the run's, at least 1. The released
            code's 1.5 ends the run at (1 + cos(2π/3))/2 = 25 % of the peak, and a little above
            that with a warm-up.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, cosine_length * total - warmup_steps)
    return peak * (final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2)
