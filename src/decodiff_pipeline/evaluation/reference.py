"""The results that new ones are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

CHAMPION = "champion"  # the model that the registry gives this alias


@dataclass(frozen=True)
class EarlierEvaluation:
    """An earlier evaluation.

    Attributes:
        name: Whose it is, for readers.
        record: Its ``evaluation_record``, a row for each image; ``None`` where there is none.
        metrics: Its ``metrics.json``; ``None`` where there is none.
        missing: Why one of the two is missing, in one sentence.
    """

    name: str
    record: pd.DataFrame | None = None
    metrics: Mapping[str, Any] | None = None
    missing: str | None = None


class EarlierEvaluations(Protocol):
    """Where earlier evaluations are looked up; see `datasets.reference`."""

    def load(self, compare_with: str | None) -> EarlierEvaluation | None:
        """The evaluation of the champion or of a revision; ``None`` for ``None``."""
