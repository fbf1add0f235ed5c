"""Names of categories as tables and charts show them, and those that a category must not have."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# What stands beside the categories: the mean over them, gates on the whole model, the floors.
TAKEN = frozenset({"mean", "all", "baseline"})


def metric_key(name: str) -> str:
    """A name with the characters replaced that MLflow takes in no key."""
    return re.sub(r"[^\w\-. /]", "_", name)


def check_names(names: Iterable[str], root: Path) -> None:
    """Refuse names that would be mistaken for something else, or for each other.

    Raises:
        DataError: One is taken, or two differ only by what MLflow's metric names replace.
    """
    seen: dict[str, str] = {}
    for name in names:
        key = metric_key(name)
        if key in TAKEN:
            raise DataError(
                f"a category in {root} is called {name!r}, which stands for something else in the "
                "results: give it another name."
            )
        if key in seen:
            raise DataError(
                f"the categories {seen[key]!r} and {name!r} in {root} are both {key!r} in MLflow, "
                "which replaces other characters: rename one."
            )
        seen[key] = name
