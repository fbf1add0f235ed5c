"""Learning rate as a pure function of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math


def learning_rate(
    step: int,
    total: int,
    *,
    peak: float,
    warmup_steps: int,
    final: float = 0.0,
    cosine_length: float = 1.0,
) -> float:
    """Linear warm-up, then a half cosine over the real length of the run or a multiple of it.

    Args:
        step: Optimiser steps done so far, 0…total-1.
        warmup_steps: Steps over which the rate rises; the first step already trains.
        final: Rate at the end of the cosine, as a share of the peak.
        cosine_length: Where the cosine ends, in lengths of the run, at least 1. The released
            code's 1.5 leaves the last step at (1 + cos(2π/3))/2 = 25 % of the peak, and a little
            above that with a warm-up.

    Returns:
        The rate for this step.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, cosine_length * total - warmup_steps)
    return peak * (final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2)
