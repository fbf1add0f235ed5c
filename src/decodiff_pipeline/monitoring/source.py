"""Recent images: a folder of them, a table of paths or of scores alone, or a request log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from decodiff_pipeline.data.decoding import MAX_PIXELS
from decodiff_pipeline.data.images import SUFFIXES, ImageFolder
from decodiff_pipeline.data.listing import list_photographs, without_system
from decodiff_pipeline.data.tables import read_table, table_path
from decodiff_pipeline.deco.colour import FULL_DEPTH
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.monitoring.request_log import log_files, read_log

if TYPE_CHECKING:
    from PIL import Image

COLUMNS = "category, and path or score"


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
            last_days: The same.

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
        paths = list_photographs(self.path)
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
