"""The code and data that a run works with, as a catalog dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from decodiff_pipeline.commands import environment, overrides
from decodiff_pipeline.data.provenance import git_state
from decodiff_pipeline.deco.digests import folder_sha256
from decodiff_pipeline.dvc_lock import dvc_revision
from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.tracking.tracker import active_run_id


class ProvenanceDataset(AbstractDataset[NoReturn, dict[str, Any]]):
    """Code, ``--params``, ``dvc.lock``, run and version; each of them may be ``None``."""

    def __init__(
        self,
        *,
        registration: str | None = None,
        model: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Name where the last registration and the model are.

        Args:
            registration: What the registration wrote last.
            model: Folder of the pipeline.
        """
        self._registration, self._model = registration, model
        self.metadata = metadata

    def load(self) -> dict[str, Any]:
        """Ask Git, compare ``dvc.lock``, and name the MLflow run."""
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
        """The version that the model is registered as, if it is."""
        if self._registration is None or self._model is None:
            return None
        try:
            registered = json.loads(Path(self._registration).read_bytes())
            if registered["sha256"] == folder_sha256(Path(self._model)):
                return f"{registered['name']} version {registered['version']}"
        except (OSError, ValueError, KeyError, ModelError):
            pass
        return None

    def save(self, data: NoReturn) -> NoReturn:
        """Refuse.

        Raises:
            DatasetError: Always.
        """
        raise DatasetError("Git and DVC say what the provenance is; it cannot be saved")

    def _describe(self) -> dict[str, Any]:
        return {"registration": self._registration, "model": self._model}
