"""What an ablation has finished, on disk, so that it is never done twice."""

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
    """A handle on a folder: cheap to make.

    ``results/<key>.json`` has the figures of one network scored in one way, ``networks/<key>`` a
    network's checkpoints. A key is a digest of everything that decides the content, so that
    variants which come to the same share one, and a changed parameter finds nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def result(self, key: str) -> dict[str, Any] | None:
        """The figures under a key, or None where there are none yet.

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
        """Write figures, with what they are of for whoever looks into the folder.

        Raises:
            CheckpointError: The file system refuses.
        """
        file = self._result(key)
        try:
            with replacing(file) as temporary:
                content = {"metrics": metrics, "identity": identity}
                temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
        except OSError as error:
            raise CheckpointError(
                f"the result {file} cannot be written ({error.strerror or error}); make room on "
                "the disk and run again: finished variants are kept"
            ) from error

    def network(self, key: str) -> CheckpointStore:
        """Where a network's training keeps its state."""
        return CheckpointStore(self.path / "networks" / key)

    def remove_network(self, key: str) -> None:
        """Delete a network's checkpoints."""
        shutil.rmtree(self.network(key).path, ignore_errors=True)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder that is gone afterwards; also what a killed run left of it."""
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
