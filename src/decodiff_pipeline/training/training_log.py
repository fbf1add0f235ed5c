"""The training log as a file that grows while the training runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.data.atomic import replacing
from decodiff_pipeline.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FILE = "log.jsonl"


class TrainingLog:
    """Rows of a run's log, one JSON object a line.

    The file may run ahead of the newest checkpoint; a resumed run begins by putting it back to
    that checkpoint's rows, and then repeats the steps of the rows it has dropped.

    Args:
        folder: Where the run keeps its state.
        rows: The list that rows are kept in besides.
    """

    def __init__(self, folder: Path, rows: list[dict[str, Any]]) -> None:
        self.path = folder / FILE
        self.rows = rows

    def begin(self, rows: Sequence[dict[str, Any]]) -> None:
        """Start with these rows, whatever the file held before.

        Raises:
            CheckpointError: The file system refuses.
        """
        self.rows[:] = rows
        try:
            with replacing(self.path) as temporary:
                temporary.write_text("".join(map(_line, rows)))
        except OSError as error:
            raise self._refused(error) from error

    def append(self, row: dict[str, Any]) -> None:
        """Add a row; it can be read from the file at once.

        Raises:
            CheckpointError: The file system refuses.
        """
        self.rows.append(row)
        try:
            with self.path.open("a") as file:
                file.write(_line(row))
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> CheckpointError:
        msg = (
            f"training log {self.path} cannot be written ({error}); free some space and start "
            "again: the run goes on from its newest checkpoint"
        )
        return CheckpointError(msg)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"
