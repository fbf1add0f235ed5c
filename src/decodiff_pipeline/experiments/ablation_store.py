"""Stores the results and networks of an ablation on disk, so that none is computed twice."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.data.atomic import replacing
from decodiff_pipeline.errors import CheckpointError
from decodiff_pipeline.training.checkpoints import CheckpointStore

if TYPE_CHECKING:
    from collections.abc import Iterator


class AblationStore:
    """A handle on the store's folder.

    ``results/<key>.json`` has the metrics of one network with one scoring, ``networks/<key>`` a
    network's checkpoints. A key is a digest of everything that determines the content, so that
    equivalent variants share an entry and a changed parameter has a new one.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def result(self, key: str) -> dict[str, Any] | None:
        """The metrics of a key, or None if there are none yet.

        Raises:
            CheckpointError: The file is damaged.
        """
        file = self._result(key)
        if not file.is_file():
            return None
        try:
            return json.loads(file.read_text(encoding="utf-8"))["metrics"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"the result {file} is damaged ({error}); delete it to have it computed again"
            ) from error

    def save_result(self, key: str, metrics: dict[str, Any], identity: dict[str, Any]) -> None:
        """Write metrics, with their identity as documentation.

        Raises:
            CheckpointError: The file cannot be written.
        """
        file = self._result(key)
        try:
            with replacing(file) as temporary:
                content = {"metrics": metrics, "identity": identity}
                temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
        except OSError as error:
            raise CheckpointError(
                f"the result {file} cannot be written ({error.strerror or error}); free disk "
                "space and run again: finished variants are kept"
            ) from error

    def network(self, key: str) -> CheckpointStore:
        """The checkpoints of a network."""
        return CheckpointStore(self.path / "networks" / key)

    def remove_network(self, key: str) -> None:
        """Delete a network's checkpoints."""
        shutil.rmtree(self.network(key).path, ignore_errors=True)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty temporary folder; also removes that of a killed run."""
        folder = self.path / "scratch"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _result(self, key: str) -> Path:
        return self.path / "results" / f"{key}.json"

    def __repr__(self) -> str:
        return f"AblationStore({str(self.path)!r})"
