"""The served model as a training sees it; who looks it up is no business of training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import Protocol


@dataclass(frozen=True)
class Champion:
    """A copy of the version that is served."""

    model: str  # its name in the registry
    version: str  # its number
    sha256: str  # of the pipeline's files as they were registered
    folder: Path  # the pipeline, with these files


class Champions(Protocol):
    """Where the champion is looked up; see `datasets.champion`."""

    model: str

    def fetch(self) -> Champion | None:
        """The champion, or ``None`` where there is none yet."""
