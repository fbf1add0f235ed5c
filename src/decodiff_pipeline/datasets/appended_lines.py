"""Lines that are appended to a file, as a catalog dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset, DatasetError

from decodiff_pipeline.data.atomic import append_lines

if TYPE_CHECKING:
    from kedro_datasets._typing import JSONPreview


class AppendedLinesDataset(AbstractDataset[Any, Any]):
    """JSON lines that are only added to, whoever else does so meanwhile."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        """Name the file.

        Args:
            filepath: The file; it and its folder are made where they are missing.
        """
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> list[Any]:
        """Every line in the order it was added.

        Raises:
            DatasetError: A line is no JSON.
        """
        lines = self._filepath.read_text(encoding="utf-8").splitlines()
        try:
            return [json.loads(line) for line in lines if line.strip()]
        except ValueError as error:
            raise DatasetError(
                f"{self._filepath} has a line that is not JSON ({error}); move it elsewhere"
            ) from error

    def save(self, data: Any) -> None:
        """Append in one write, and wait until it is on the disk.

        Args:
            data: A list of what becomes a line each, or what becomes one line.

        Raises:
            OSError: The disk does not take it; the file is as it was.
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
