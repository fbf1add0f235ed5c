"""Sources of recent images: a folder, a table of paths or scores, or a request log."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from decodiff_pipeline.data.decoding import MAX_PIXELS
from decodiff_pipeline.data.file_names import is_left_out
from decodiff_pipeline.data.images import SUFFIXES, ImageFolder
from decodiff_pipeline.data.listing import list_images_to_score, without_system
from decodiff_pipeline.data.tables import read_table, table_path
from decodiff_pipeline.deco.colour import FULL_DEPTH
from decodiff_pipeline.deco.config import UNKNOWN
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

SUFFIX = ".jsonl"
ALL = "all"  # value of `images_kept`: images were stored whatever the decision
COLUMNS = "category, and path or score"
LOG_COLUMNS = ("category", "decision", "path", "score", "time", "scores_sha256", "images_kept")


def log_files(path: Path) -> list[Path]:
    """The files of a request log, the oldest first; empty if the path is not a request log."""
    if path.is_dir():
        return sorted(file for file in path.glob(f"*{SUFFIX}") if not is_left_out(file.name))
    return [path] if path.suffix.lower() == SUFFIX else []


def read_log(path: Path, scores_of: str | None, last_days: float | None) -> pd.DataFrame:
    """Read the usable lines of a request log.

    Skipped are images without a category and, with a warning, lines that are not JSON and scores
    of other models. A line has a path only if the log stored all images: images that were stored
    because they are defective differ from the reference in any case.

    Args:
        scores_of: `reference.reference_sha256` of the model whose scores are used; ``None`` for
            all. In a log without this field, all lines are used.
        last_days: See `MonitoringConfig`.

    Returns:
        Columns ``category``, ``path`` and ``score`` (either may be missing); the index is the line
        number in its file, from 0.

    Raises:
        DataError: No line is usable.
    """
    rows = _recent(_lines(path), path, last_days)
    rows = rows[rows["decision"] != UNKNOWN].copy()
    if rows.empty:
        raise DataError(
            f"monitoring.source {path} contains no image of a category of the model; use another "
            "log, or increase monitoring.last_days"
        )
    folder = path if path.is_dir() else path.parent
    stored = rows["images_kept"].isna() | (rows["images_kept"] == ALL)
    exists = rows["path"].map(lambda name: isinstance(name, str) and (folder / name).is_file())
    rows["path"] = rows["path"].where(stored & exists)
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
            "%s: %d of %d lines are skipped, because another model than the reference's scored "
            "them",
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
            with file.open(encoding="utf-8", errors="replace") as stream:
                for number, text in enumerate(stream):
                    line = parse_line(text)
                    damaged += line is None
                    if line:
                        lines.append({name: line.get(name) for name in LOG_COLUMNS})
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
        logger.warning("%s: %d lines are not JSON and are skipped", path, damaged)
    return pd.DataFrame(lines, index=numbers, columns=list(LOG_COLUMNS), dtype=object)


def parse_line(text: str) -> dict[str, Any] | None:
    """The JSON object of a line of a log; {} for a blank line, ``None`` for anything else."""
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
            "monitoring.last_days needs; unset it, or remove those lines"
        )
    return rows[times >= times.max() - pd.Timedelta(days=last_days)].copy()


class RecentSource:
    """A handle on a folder, a table or a request log; images are read on demand.

    In a folder, the first part of an image's relative path is its category. A table (CSV or
    parquet) has the columns ``category`` and ``path`` (relative to the table's folder), ``score``,
    or both. Of a row without a path only the score is used. A file ``*.jsonl``, or a folder that
    directly contains such files, is the request log of a served model.

    Args:
        path: The folder, table or log. It may be a symbolic link; paths inside it may not.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def rows(
        self, category: str | None, *, scores_of: str | None = None, last_days: float | None = None
    ) -> pd.DataFrame:
        """List the images without opening them.

        Args:
            category: Category of all images; ``None`` for that of the table or folder.
            scores_of: See `read_log`; for request logs only.
            last_days: See `MonitoringConfig`; for request logs only.

        Returns:
            Columns ``category``, ``path`` (empty if there is none) and ``score`` (NaN if there is
            none).

        Raises:
            DataError: The source is missing or empty, or an image has no category.
        """
        if not self.path.exists():
            raise DataError(
                f"monitoring.source {self.path} does not exist; give a folder of images with one "
                f"folder per category, a CSV or parquet file with the columns {COLUMNS}, or a "
                "request log"
            )
        if log_files(self.path):
            rows = self._checked(read_log(self.path, scores_of, last_days), category)
        elif last_days is not None:
            raise DataError(
                f"monitoring.last_days is set, but monitoring.source {self.path} is not a request "
                "log, and only a request log has times; set it to null"
            )
        elif self.path.is_dir():
            rows = self._folder(category)
        else:
            rows = self._checked(self._read_table(), category)
        if rows.empty:
            raise DataError(
                f"monitoring.source {self.path} is empty; put recent images "
                f"({', '.join(sorted(SUFFIXES))}) there, or use another source"
            )
        return rows

    def read(self, path: str, bits: int = FULL_DEPTH, max_pixels: int = MAX_PIXELS) -> Image.Image:
        """Read an image; see `read_image`."""
        root = self.path if self.path.is_dir() else self.path.parent
        return ImageFolder(root, {path: bits}, max_pixels).read(path)

    def _folder(self, category: str | None) -> pd.DataFrame:
        paths = list_images_to_score(self.path)
        loose = [path for path in paths if "/" not in path]
        if category is None and loose:
            raise DataError(
                f"{self.path / loose[0]} is not in a category folder; move it into one, or set "
                "monitoring.category"
            )
        names = [category if category is not None else path.split("/")[0] for path in paths]
        return pd.DataFrame({"category": names, "path": paths, "score": np.nan})

    def _checked(self, table: pd.DataFrame, category: str | None) -> pd.DataFrame:
        if category is not None:
            table["category"] = category
        if "category" not in table or not {"path", "score"} & set(table):
            raise DataError(
                f"monitoring.source {self.path} has the columns {', '.join(map(str, table))}; it "
                f"needs {COLUMNS}"
            )
        rows = pd.DataFrame({"category": table["category"], "path": "", "score": np.nan})
        if "path" in table:
            rows["path"] = table["path"].fillna("").astype(str)
        if "score" in table:
            rows["score"] = pd.to_numeric(table["score"], errors="coerce")
        rows["score"] = rows["score"].where(np.isfinite(rows["score"].to_numpy(float)))
        empty = rows["category"].isna() | ((rows["path"] == "") & rows["score"].isna())
        if empty.any():
            first = next(iter(empty.index[empty])) + 1
            raise DataError(
                f"monitoring.source {self.path}: line {first} has no "
                "category, or neither a path nor a score that is a number; fill it in or remove it"
            )
        return rows.assign(category=rows["category"].astype(str)).reset_index(drop=True)

    def _read_table(self) -> pd.DataFrame:
        """The table, as text except for the scores; the index is the line number minus one."""
        table = without_system(read_table(self.path, ("category", "path", "score")))
        rows = pd.DataFrame([row for _, row in table.rows], columns=list(table.columns))
        rows.index = pd.Index([line - 1 for line, _ in table.rows])
        for column in {"category", "path"} & set(table.columns):
            rows[column] = rows[column].where(rows[column] != "")
        if "path" in rows:
            root = self.path.parent
            rows["path"] = rows["path"].map(lambda text: table_path(text, root), na_action="ignore")
        if "score" in rows:
            rows["score"] = [table.number(row["score"], line, "score") for line, row in table.rows]
        return rows

    def __repr__(self) -> str:
        return f"RecentSource({str(self.path)!r})"
