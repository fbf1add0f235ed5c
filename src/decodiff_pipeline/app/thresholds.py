"""Decisions on stored scores at another threshold, and the thresholds that users set."""

from __future__ import annotations

import json
import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from decodiff_pipeline.data.atomic import replacing
from decodiff_pipeline.data.splits import CALIBRATION
from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.evaluation.record import certain
from decodiff_pipeline.metrics.thresholds import image_decisions
from decodiff_pipeline.registry import audit
from decodiff_pipeline.serving.thresholds import check_overrides

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

STEPS = 500  # steps of the slider
DIGITS = 6  # decimals of a threshold chosen with the slider
SHORTEST = 3  # fewest characters of a reason
_lock = threading.Lock()


def count_errors(
    scores: pd.DataFrame, category: str, threshold: float
) -> dict[str, tuple[int, int]]:
    """Count the false alarms and misses of a category at a threshold.

    Args:
        scores: As in `served_versions.LoadedVersion`.
        threshold: An image is flagged if its score is at least this.

    Returns:
        Kind of error → (number of errors, number of images).
    """
    held_out = (scores["split"] == CALIBRATION) & (scores["category"] == category)
    flagged = scores["score"][held_out].to_numpy(float) >= threshold
    tests = certain(scores, category)
    confusion = image_decisions(
        tests["score"].to_numpy(float), (tests["label"] == "defective").to_numpy(bool), threshold
    )["confusion"]
    return {
        "false alarms on calibration images": (int(flagged.sum()), len(flagged)),
        "false alarms on good test images": (confusion["fp"], confusion["fp"] + confusion["tn"]),
        "misses on defective test images": (confusion["fn"], confusion["fn"] + confusion["tp"]),
    }


def slider_range(scores: pd.DataFrame, category: str, *shown: float | None) -> tuple[float, float]:
    """Maximum and step of the threshold slider of a category.

    Args:
        shown: Further values that the range must include; ``None`` is ignored.
    """
    known = scores["score"][scores["category"] == category].to_numpy(float)
    values = [*known[np.isfinite(known)], *(value for value in shown if value is not None)]
    top = min(1.0, round_up(1.25 * max(values, default=1.0))) or 1.0
    return top, top / STEPS


def round_up(threshold: float) -> float:
    """Round a threshold up to `DIGITS` decimals, so that no image below it becomes flagged."""
    return math.ceil(threshold * 10**DIGITS) / 10**DIGITS


def require_reason(reason: str) -> str:
    """The stripped reason; raises ``ConfigurationError`` if it is shorter than `SHORTEST`."""
    if len(reason.strip()) < SHORTEST:
        raise ConfigurationError("the reason is missing: write a few words")
    return reason.strip()


def save_override(
    file: Path, log: Path, category: str, threshold: float | None, record: dict[str, Any]
) -> None:
    """Set the threshold of a category, or (``None``) go back to the fitted one.

    Args:
        file: JSON that serving and inference read: category → ``threshold`` and the record.
        record: ``by``, ``reason``, ``model_version`` and ``model_sha256``. The threshold applies to
            this model only.

    Raises:
        ConfigurationError: The reason is missing, the threshold is invalid, or the file is damaged.
    """
    record = record | {"reason": require_reason(record["reason"])}
    if threshold is not None:
        check_overrides({category: threshold}, [category], "the page")
    line = audit.record("threshold", {}, category=category, threshold=threshold, **record)
    saved = {key: line[key] for key in ("threshold", "at", *record)}
    with _lock:
        try:
            content = json.loads(file.read_bytes()) if file.is_file() else {}
            content |= {category: saved}
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"{file} is damaged ({error}); repair or remove it") from error
        if threshold is None:
            del content[category]
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        audit.append(log, line)
