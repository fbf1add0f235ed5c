"""Kedro's file datasets with atomic saves: a killed run leaves the old or the new file."""

from __future__ import annotations

from html import escape
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from kedro_datasets import json, pandas, text

from decodiff_pipeline.data.atomic import replacing

if TYPE_CHECKING:
    from kedro_datasets._typing import HTMLPreview, TablePreview


class _AtomicSave:
    """Saves to a temporary file and renames it. Remote and versioned files are saved by Kedro."""

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


class JSONDataset(_AtomicSave, json.JSONDataset):
    """A JSON file."""


class TextDataset(_AtomicSave, text.TextDataset):
    """A text file, such as a Markdown or HTML page."""

    def preview(self) -> HTMLPreview:
        """The HTML page, or other text as preformatted HTML, for Kedro-Viz."""
        text = self.load()
        return text if self._filepath.suffix == ".html" else f"<pre>{escape(text)}</pre>"


class ParquetDataset(_AtomicSave, pandas.ParquetDataset):
    """A Parquet table."""

    def preview(self, nrows: int = 20) -> TablePreview:
        """The first rows, with the lengths of array cells, for Kedro-Viz."""
        import numpy as np

        table = super().preview(nrows)
        table["data"] = [
            [f"{len(cell)} values" if isinstance(cell, np.ndarray) else cell for cell in row]
            for row in table["data"]
        ]
        return table
