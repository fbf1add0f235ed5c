"""The code and data that a run works with, as a catalog dataset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from decodiff_pipeline.data.provenance import dvc_revision, git_state


class ProvenanceDataset(AbstractDataset[NoReturn, dict[str, Any]]):
    """``git_commit``, ``git_dirty``, ``dvc_revision``, ``mlflow_run_id``; each may be ``None``."""

    def __init__(self, *, metadata: dict[str, Any] | None = None) -> None:
        """Nothing to configure: Kedro runs in the project's folder."""
        self.metadata = metadata

    def load(self) -> dict[str, Any]:
        """Ask Git, read ``dvc.lock``, and look where the tracking hook names its run."""
        git = git_state(Path.cwd())
        return {
            "git_commit": git.commit,
            "git_dirty": git.dirty,
            "dvc_revision": dvc_revision(Path.cwd()),
            "mlflow_run_id": os.environ.get("MLFLOW_RUN_ID"),
        }

    def save(self, data: NoReturn) -> NoReturn:
        """Refuse.

        Raises:
            DatasetError: Always.
        """
        raise DatasetError("Git and DVC say what the provenance is; it cannot be saved")

    def _describe(self) -> dict[str, Any]:
        return {}
