"""The request log of a served model as a source of recent images and scores."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pandas as pd

from decodiff_pipeline.data.file_names import is_left_out
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

SUFFIX = ".jsonl"
ALL = "all"  # of `images_kept`: no image was left out for what the model said of it
COLUMNS = ("category", "path", "score", "time", "scores_sha256", "images_kept")


def log_files(path: Path) -> list[Path]:
    """The log's files, oldest first: the file itself, or those in a folder; none for no log."""
    if path.is_dir():
        return sorted(file for file in path.glob(f"*{SUFFIX}") if not is_left_out(file.name))
    return [path] if path.suffix.lower() == SUFFIX else []


def read_log(path: Path, scores_of: str | None, last_days: float | None) -> pd.DataFrame:
    """Read a request log, without what would mislead.

    Left out, with a warning that counts them: lines that are no JSON, and scores that another
    model gave. A line keeps its image where one is there and all images were to be kept: of the
    defective ones alone, everything would differ from the reference.

    Args:
        path: The file or folder.
        scores_of: The model whose scores count, as `reference.reference_sha256` tells it; ``None``
            for whatever is there. Lines that say nothing of it count in a file where none does.
        last_days: See `MonitoringConfig`.

    Returns:
        Columns ``category``, ``path`` and ``score`` (missing where there is none); the index is
        the number of the line in its file, from 0.

    Raises:
        DataError: Nothing is left.
    """
    rows = _recent(_lines(path), path, last_days)
    where = path if path.is_dir() else path.parent
    kept = rows["images_kept"].isna() | (rows["images_kept"] == ALL)
    there = rows["path"].map(lambda name: isinstance(name, str) and (where / name).is_file())
    rows["path"] = rows["path"].where(kept & there)
    others = pd.Series(False, index=rows.index)
    if scores_of is not None and rows["scores_sha256"].notna().any():
        others = (rows["scores_sha256"] != scores_of) & rows["path"].isna()
        rows["score"] = rows["score"].where(rows["scores_sha256"] == scores_of)
    if others.all():
        raise DataError(
            f"monitoring.source {path}: all {len(rows):,} lines are of another model than the "
            "reference; set monitoring.model to the artifacts of the version that is served"
        )
    if others.any():
        logger.warning(
            "%s: %d of %d lines are left out, which another model than the reference's scored",
            path,
            others.sum(),
            len(rows),
        )
    return rows.loc[~others, ["category", "path", "score"]]


def _lines(path: Path) -> pd.DataFrame:
    lines: list[dict[str, Any]] = []
    numbers: list[int] = []
    damaged = 0
    for file in log_files(path):
        try:
            with file.open(encoding="utf-8", errors="replace") as opened:
                for number, text in enumerate(opened):
                    line = _parsed(text)
                    damaged += line is None
                    if line:
                        lines.append({name: line.get(name) for name in COLUMNS})
                        numbers.append(number)
        except OSError as error:
            raise DataError(
                f"monitoring.source {file} cannot be read ({error.strerror}); make it readable"
            ) from error
    if not lines:
        raise DataError(
            f"monitoring.source {path} has no line that is a JSON object; it must be the log that "
            "DECODIFF_REQUEST_LOG names, or lines with category, and path or score"
        )
    if damaged:
        logger.warning("%s: %d lines are not JSON and are left out", path, damaged)
    return pd.DataFrame(lines, index=numbers, columns=list(COLUMNS), dtype=object)


def _parsed(text: str) -> dict[str, Any] | None:
    """The line; empty for an empty one, ``None`` for one that is no JSON object."""
    if not text.strip():
        return {}
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _recent(rows: pd.DataFrame, path: Path, last_days: float | None) -> pd.DataFrame:
    if last_days is None:
        return rows
    times = pd.to_datetime(rows["time"], utc=True, errors="coerce", format="ISO8601")
    if times.isna().any():
        raise DataError(
            f"monitoring.source {path}: {times.isna().sum()} lines have no time, which "
            "monitoring.last_days needs; leave it out, or remove those lines"
        )
    return rows[times >= times.max() - pd.Timedelta(days=last_days)].copy()
