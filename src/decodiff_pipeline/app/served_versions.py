"""Registered model versions: their list, and loaded versions that score images."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.deco.digests import folder_sha256
from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.registry.evaluation_records import RECORD_FILE
from decodiff_pipeline.registry.versions import CHAMPION, Registry
from decodiff_pipeline.serving.scorer import Scorer
from decodiff_pipeline.serving.served_version import logged_folder
from decodiff_pipeline.tracking.mlflow_values import first_line

if TYPE_CHECKING:
    from decodiff_pipeline.app.project import AppProject

KEPT = 3  # versions in memory: the served one and the two in a comparison
SCORES = ["category", "split", "label", "path", "sha256", "score"]


@dataclass(frozen=True)
class LoadedVersion:
    """A model version in memory.

    Attributes:
        sha256: SHA-256 over the files of its pipeline.
        scorer: The server's scorer.
        scores: Scores of the calibration and test images from the evaluation of the version;
            columns `SCORES`, no rows if none are stored.
    """

    number: str
    sha256: str
    scorer: Scorer
    scores: pd.DataFrame


class ServedVersions:
    """Loads versions from the registry, and keeps the `KEPT` most recently used in memory."""

    def __init__(self, project: AppProject) -> None:
        self._project = project
        self.registry = Registry(project.model_name)
        self._folder = tempfile.TemporaryDirectory(prefix="decodiff-app-")
        self._loaded: dict[str, LoadedVersion] = {}

    def served_number(self) -> str:
        """Number of the champion, else of the newest version, as with ``make serve``.

        Raises:
            ModelError: The model has no version, or MLflow cannot be reached.
        """
        return self.registry.aliases().get(CHAMPION) or str(self.list_versions()[0]["version"])

    def served(self) -> LoadedVersion:
        """Load the version of `served_number`.

        Raises:
            ModelError: The model has no version, or it cannot be loaded.
        """
        return self.load(self.served_number())

    def load(self, number: str) -> LoadedVersion:
        """Load a version, from memory if possible.

        Raises:
            ModelError: The version cannot be downloaded or loaded.
        """
        found = self._loaded.pop(number, None) or self._load(number)
        self._loaded[number] = found
        while len(self._loaded) > KEPT:
            self._loaded.pop(next(iter(self._loaded)))
        return found

    def clear(self) -> None:
        """Drop the versions in memory, after a change of their thresholds."""
        self._loaded.clear()

    def list_versions(self) -> list[dict[str, Any]]:
        """All versions, newest first: ``version``, ``aliases``, ``registered`` (UTC), ``tags``.

        Raises:
            ModelError: The model has no version, or MLflow cannot be reached.
        """
        aliases, name = self.registry.aliases(), self._project.model_name
        found = self.registry.client.search_model_versions(f"name = '{name}'")
        if not found:
            raise ModelError(f"{name} has no version any more; run {kedro_run('registration')}")
        versions = sorted(found, key=lambda version: -int(version.version))
        return [
            {
                "version": str(version.version),
                "aliases": sorted(
                    a for a, number in aliases.items() if number == str(version.version)
                ),
                "registered": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
                "tags": dict(version.tags),
            }
            for version in versions
        ]

    def _load(self, number: str) -> LoadedVersion:
        import mlflow

        version, files = self.registry.version(number), Path(self._folder.name, number)
        try:
            if not files.is_dir():
                target = tempfile.mkdtemp(dir=self._folder.name)  # may stay incomplete
                Path(mlflow.artifacts.download_artifacts(version.uri, dst_path=target)).rename(
                    files
                )
            limits = mlflow.models.Model.load(str(files)).flavors["python_function"].get("config")
        except Exception as error:  # MLflow and its stores raise many types
            msg = f"version {number} cannot be fetched ({first_line(error)}); check MLflow"
            raise ModelError(msg) from error
        pipeline, overrides = logged_folder(files), self._project.overrides
        scorer = Scorer.from_folder(
            pipeline,
            files / "artifacts" / "thresholds.json",
            overrides=overrides if overrides.is_file() else None,
            **(limits or {}),
        )
        scores = self._stored_scores(version.run_id, files)
        return LoadedVersion(number, folder_sha256(pipeline), scorer, scores)

    def _stored_scores(self, run_id: str, files: Path) -> pd.DataFrame:
        target = files.with_name(f"{files.name}-evaluation")
        try:
            target.mkdir(exist_ok=True)
            found = self.registry.client.download_artifacts(run_id, RECORD_FILE, str(target))
            return pd.read_parquet(found)[SCORES]
        except Exception:  # registered elsewhere: usable without stored scores
            return pd.DataFrame(columns=SCORES)
