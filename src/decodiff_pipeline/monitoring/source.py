"""Recent images: a folder of them, a table of paths or of scores alone, or a request log."""

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
ALL = "all"  # of `images_kept`: no image was left out for what the model said of it
COLUMNS = "category, and path or score"
LOG_COLUMNS = ("category", "decision", "path", "score", "time", "scores_sha256", "images_kept")


def log_files(path: Path) -> list[Path]:
    """The log's files, oldest first: the file itself, or those in a folder; none for no log."""
    if path.is_dir():
        return sorted(file for file in path.glob(f"*{SUFFIX}") if not is_left_out(file.name))
    return [path] if path.suffix.lower() == SUFFIX else []


def read_log(path: Path, scores_of: str | None, last_days: float | None) -> pd.DataFrame:
    """Read a request log, without what would mislead.

    Left out: images of no category; and, with a warning that counts them, lines that are no JSON
    and scores that another model gave. A line keeps its image where one is there and all images
    were to be kept: of the defective ones alone, everything would differ from the reference.

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
    rows = rows[rows["decision"] != UNKNOWN].copy()
    if rows.empty:
        raise DataError(
            f"monitoring.source {path} holds no image of a category that the model knows; name "
            "another log, or set monitoring.last_days higher"
        )
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
        logger.warning("%s: %d lines are not JSON and are left out", path, damaged)
    return pd.DataFrame(lines, index=numbers, columns=list(LOG_COLUMNS), dtype=object)


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


class RecentSource:
    """A handle on a folder, a table or a log: cheap to make, reads one image at a time.

    In a folder, the first folder of an image's path is its category. A table (CSV or parquet) has
    ``category`` and ``path`` (relative to the table's folder), ``score``, or both. A row without a
    path is known by its score alone. A file ``*.jsonl``, or a folder with such files directly in
    it, is the log of a served model.

    Args:
        path: The folder, table or log. It may itself be a link; nothing below it may.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def rows(
        self,
        category: str | None,
        *,
        scores_of: str | None = None,
        last_days: float | None = None,
    ) -> pd.DataFrame:
        """List what there is; no image is opened.

        Args:
            category: Of all of it; ``None`` for what the table or the folders say.
            scores_of: Of a request log: see `read_log`.

        Returns:
            Columns ``category``, ``path`` (empty where there is none) and ``score`` (NaN where
            there is none).

        Raises:
            DataError: There is nothing, or something has no category.
        """
        if not self.path.exists():
            raise DataError(
                f"monitoring.source {self.path} does not exist; name a folder of images with one "
                f"folder a category, a CSV or parquet file with the columns {COLUMNS}, or a "
                "request log"
            )
        if log_files(self.path):
            rows = self._checked(read_log(self.path, scores_of, last_days), category)
        elif last_days is not None:
            raise DataError(
                f"monitoring.last_days is set, but monitoring.source {self.path} is no request "
                "log, so nothing says how old an image is; set it to null"
            )
        elif self.path.is_dir():
            rows = self._folder(category)
        else:
            rows = self._checked(self._read_table(), category)
        if rows.empty:
            raise DataError(
                f"monitoring.source {self.path} is empty; put recent images "
                f"({', '.join(sorted(SUFFIXES))}) there, or name another source"
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
                f"{self.path / loose[0]} lies in no folder that would name its category; put it "
                "into one, or set monitoring.category"
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
        """The table as text, but for the scores; the index is the number of the line less one."""
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
