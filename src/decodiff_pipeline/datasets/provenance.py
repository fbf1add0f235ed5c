"""Catalog dataset of a run's provenance: versions of code, data, parameters and model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from decodiff_pipeline.commands import environment, overrides
from decodiff_pipeline.data.provenance import git_state
from decodiff_pipeline.datasets.read_only import ReadOnlyDataset
from decodiff_pipeline.deco.digests import folder_sha256
from decodiff_pipeline.dvc_lock import dvc_revision
from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.tracking.tracker import active_run_id


class ProvenanceDataset(ReadOnlyDataset[dict[str, Any]]):
    """Git state, ``--params``, ``dvc.lock``, MLflow run and model version of the current run."""

    read_only = "provenance is read-only: it comes from Git, DVC and MLflow"

    def __init__(
        self,
        *,
        registration: str | None = None,
        model: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Set the files that identify the model version.

        Args:
            registration: Path of ``registration.json``, the output of the last registration.
            model: Folder of the model.
        """
        self._registration, self._model = registration, model
        self.metadata = metadata

    def load(self) -> dict[str, Any]:
        """Read the provenance from Git, ``dvc.lock`` and MLflow.

        Returns:
            ``git_commit``, ``git_dirty``, ``parameter_overrides``, ``dvc_revision``,
            ``mlflow_run_id`` and ``registered_version``; unknown ones are ``None``.
        """
        git = git_state(Path.cwd())
        return {
            "git_commit": git.commit,
            "git_dirty": git.dirty,
            "parameter_overrides": ", ".join(sorted(overrides())) or None,
            "dvc_revision": dvc_revision(Path.cwd(), environment()),
            "mlflow_run_id": active_run_id(),
            "registered_version": self._version(),
        }

    def _version(self) -> str | None:
        """Name and version of the last registration; ``None`` if it is of another model."""
        if self._registration is None or self._model is None:
            return None
        try:
            registered = json.loads(Path(self._registration).read_bytes())
            if registered["sha256"] == folder_sha256(Path(self._model)):
                return f"{registered['name']} version {registered['version']}"
        except (OSError, ValueError, KeyError, ModelError):
            pass
        return None

    def _describe(self) -> dict[str, Any]:
        return {"registration": self._registration, "model": self._model}
