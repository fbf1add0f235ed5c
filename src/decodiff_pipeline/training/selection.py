"""Which validation was the best so far, and whether to go on after it."""

from __future__ import annotations

from dataclasses import dataclass

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
            value: The measurement, a finite number.

        Returns:
            Whether it is the best so far; a draw is not.

        """
        sign = -1 if monitor in LOWER_IS_BETTER else 1
        if self.value is not None and sign * value <= sign * self.value:
            self.waited += 1
            return False
        self.step, self.value, self.waited = step, value, 0
        return True
