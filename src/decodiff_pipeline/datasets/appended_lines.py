"""Catalog dataset of an append-only JSON Lines file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset, DatasetError

from decodiff_pipeline.data.atomic import append_lines

if TYPE_CHECKING:
    from kedro_datasets._typing import JSONPreview


class AppendedLinesDataset(AbstractDataset[Any, Any]):
    """An append-only JSON Lines file. Several processes may append at the same time."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        """Set the file.

        Args:
            filepath: File path; the file and its folder are created on the first save.
        """
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> list[Any]:
        """Parse all lines, oldest first.

        Raises:
            DatasetError: A line is not JSON.
        """
        lines = self._filepath.read_text(encoding="utf-8").splitlines()
        try:
            return [json.loads(line) for line in lines if line.strip()]
        except ValueError as error:
            raise DatasetError(
                f"{self._filepath} has a line that is not JSON ({error}); move the file elsewhere"
            ) from error

    def save(self, data: Any) -> None:
        """Append to the file in one write under a file lock, and sync it to disk.

        Args:
            data: A JSON value for one line, or a list with a JSON value per line.

        Raises:
            OSError: The write failed; the file is unchanged.
        """
        lines = data if isinstance(data, list) else [data]
        if not lines:
            return
        text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        append_lines(self._filepath, text.encode(), sync=True)

    def preview(self, nrows: int = 20) -> JSONPreview:
        """The newest lines, for Kedro-Viz."""
        return json.dumps(self.load()[: -nrows - 1 : -1])

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
