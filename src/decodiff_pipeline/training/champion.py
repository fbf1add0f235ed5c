"""The champion, that is, the served model version, as a source of initial weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import Protocol


@dataclass(frozen=True)
class Champion:
    """A local copy of the served version."""

    model: str  # name in the registry
    version: str
    sha256: str  # digest of the pipeline's files, as registered
    folder: Path  # the pipeline


class Champions(Protocol):
    """Looks up the champion; implemented by `datasets.champion`."""

    model: str

    def fetch(self) -> Champion | None:
        """The champion; ``None`` if there is none yet."""
