"""Which validation was the best so far, and whether to go on after it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from decodiff_pipeline.errors import ModelError

LOWER_IS_BETTER = {"held_out_loss"}


@dataclass
class Selection:
    """The best validation of a run. All of it is part of a checkpoint.

    Attributes:
        step: Optimiser steps done at the best validation; None before the first one.
        value: What was measured there.
        waited: Validations since.
    """

    step: int | None = None
    value: float | None = None
    waited: int = 0

    def update(self, monitor: str, step: int, value: float) -> bool:
        """Take note of a validation.

        Args:
            monitor: Name of what was measured.
            step: Optimiser steps done.
            value: The measurement.

        Returns:
            Whether it is the best so far; a draw is not.

        Raises:
            ModelError: It is not a number.
        """
        if not math.isfinite(value):
            msg = (
                f"the validation's {monitor} is {value} at step {step}, so that no network can be "
                "chosen by it; lower training.learning_rate or choose another training.monitor"
            )
            raise ModelError(msg)
        sign = -1 if monitor in LOWER_IS_BETTER else 1
        if self.value is not None and sign * value <= sign * self.value:
            self.waited += 1
            return False
        self.step, self.value, self.waited = step, value, 0
        return True
