"""Kedro's datasets of single files: a run that is killed leaves the old file or the new one."""

from __future__ import annotations

from html import escape
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from kedro_datasets import json, pandas, text

from decodiff_pipeline.data.atomic import replacing

if TYPE_CHECKING:
    from kedro_datasets._typing import HTMLPreview, TablePreview


class _Whole:
    """Saves under a temporary name, and renames; files elsewhere than on a disk as Kedro does."""

    def save(self: Any, data: Any) -> None:
        if self._protocol != "file" or self._version is not None:
            super().save(data)  # type: ignore[misc]
            return
        path = self._filepath
        try:
            with replacing(Path(path)) as temporary:
                self._filepath = PurePosixPath(temporary)
                super().save(data)  # type: ignore[misc]
        finally:
            self._filepath = path


class JSONDataset(_Whole, json.JSONDataset):
    """A JSON file."""


class TextDataset(_Whole, text.TextDataset):
    """A text file, such as a Markdown or HTML page."""

    def preview(self) -> HTMLPreview:
        """The page for Kedro-Viz; other text as it is."""
        text = self.load()
        return text if self._filepath.suffix == ".html" else f"<pre>{escape(text)}</pre>"


class ParquetDataset(_Whole, pandas.ParquetDataset):
    """A table."""

    def preview(self, nrows: int = 20) -> TablePreview:
        """The first rows, for Kedro-Viz; of a list its length."""
        import numpy as np

        table = super().preview(nrows)
        table["data"] = [
            [f"{len(cell)} values" if isinstance(cell, np.ndarray) else cell for cell in row]
            for row in table["data"]
        ]
        return table
