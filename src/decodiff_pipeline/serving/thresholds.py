"""Image thresholds: those of the evaluation, and the overrides that replace them."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)


def threshold_of(
    thresholds: Mapping[str, Any], category: str, kind: str = "threshold"
) -> float | None:
    """The category's ``threshold`` or ``pixel_threshold``; ``None`` if it has none."""
    value = thresholds["categories"].get(category, {}).get(kind)
    return None if value is None else float(value)


def deciding_threshold(
    category: str,
    thresholds: Mapping[str, Any],
    overrides: Mapping[str, float],
    *,
    requested: float | None,
) -> tuple[float | None, str | None]:
    """The image threshold in effect, and its origin (see :class:`~.answer.Answer`).

    Args:
        overrides: Category → threshold; precedes the fitted threshold.
        requested: Threshold of the request; precedes both.
    """
    if requested is not None:
        return requested, "request"
    if category in overrides:
        return overrides[category], "override"
    fitted = threshold_of(thresholds, category)
    if fitted is None:
        return None, None
    by_labels = thresholds["categories"][category].get("fitted_on") == "labels"
    return fitted, "fitted on labels" if by_labels else "fitted"


def read_overrides(
    path: Path, categories: Sequence[str], model_sha256: str | None = None
) -> dict[str, float]:
    """Read a JSON file of image thresholds.

    Args:
        path: ``{category: number}``; other categories keep the fitted threshold. The app writes
            ``{category: {"threshold": number, "model_sha256": digest}}``; entries of another model
            are skipped with a warning.

    Raises:
        ConfigurationError: The file cannot be read, has an unknown category, or a threshold is not
            a number within 0…1.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f'{path} cannot be read ({error}); write it as {{"<category>": 0.5}}'
        raise ConfigurationError(msg) from error
    if not isinstance(content, dict):
        msg = f'{path} is not a JSON object; write it as {{"<category>": 0.5}}'
        raise ConfigurationError(msg)
    overrides = {}
    for category, value in content.items():
        if not isinstance(value, dict):
            overrides[category] = value
        elif value.get("model_sha256") == model_sha256:
            overrides[category] = value.get("threshold")
        else:
            logger.warning("%s: the threshold of %s was set for another model", path, category)
    check_overrides(overrides, categories, str(path))
    return overrides


def check_overrides(overrides: Mapping[str, float], categories: Sequence[str], where: str) -> None:
    """Check the categories and values of thresholds.

    Args:
        where: File or parameter of the thresholds, for error messages.

    Raises:
        ConfigurationError: A category is unknown or a threshold is not within 0…1.
    """
    for category, value in overrides.items():
        if category not in categories:
            msg = (
                f"{where} has the unknown category {category!r}; "
                f"this model knows {', '.join(categories)}"
            )
            raise ConfigurationError(msg)
        if not is_threshold(value):
            msg = f"{where} has {value!r} for {category!r}; a threshold must be within 0…1"
            raise ConfigurationError(msg)


def is_threshold(value: object) -> bool:
    """Whether a value is a number within 0…1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
