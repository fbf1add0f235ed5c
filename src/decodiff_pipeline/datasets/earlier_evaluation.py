"""Catalog dataset of the champion's evaluation, or of the evaluation in a Git revision."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.data.provenance import git_output
from decodiff_pipeline.datasets.read_only import ReadOnlyDataset
from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.evaluation.comparison import EarlierEvaluation
from decodiff_pipeline.tracking.mlflow_values import artifact_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

CHAMPION = "champion"  # value of evaluation.compare_with, and alias in the model registry


class EarlierEvaluationDataset(ReadOnlyDataset["EarlierEvaluations"]):
    """Loads a handle that finds the evaluation that ``evaluation.compare_with`` names.

    Example:
        .. code-block:: yaml

            earlier_evaluations:
              type: decodiff_pipeline.datasets.earlier_evaluation.EarlierEvaluationDataset
              filepath: data/07_model_output/elpv/evaluation_record.parquet
              metrics: data/08_reporting/elpv/metrics.json
              model_name: decodiff-elpv
    """

    read_only = "earlier_evaluations is read-only; save to evaluation_record and metrics"

    def __init__(
        self,
        *,
        filepath: str,
        metrics: str,
        model_name: str,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Set the files: by path in a Git revision, by file name in the artifacts of an MLflow run.

        Args:
            filepath: Evaluation record with a row per image (Parquet).
            metrics: Metrics (JSON).
            model_name: Name of the registered model.
        """
        self._record = Path(filepath)
        self._metrics = Path(metrics)
        self._model_name = model_name
        self.metadata = metadata

    def load(self) -> EarlierEvaluations:
        """Create the handle, without access to Git or MLflow."""
        return EarlierEvaluations(self._record, self._metrics, self._model_name)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._record), "model_name": self._model_name}


class EarlierEvaluations:
    """Reads earlier evaluations from MLflow or Git; see `EarlierEvaluationDataset`."""

    def __init__(self, record: Path, metrics: Path, model_name: str) -> None:
        self._record = record
        self._metrics = metrics
        self._model_name = model_name

    def check(self, compare_with: str | None) -> None:
        """Check that the revision exists. A missing champion is not an error.

        Raises:
            ConfigurationError: Git has no such revision.
        """
        if compare_with not in (None, CHAMPION):
            self._commit(str(compare_with))

    def load(self, compare_with: str | None) -> EarlierEvaluation | None:
        """Read an earlier evaluation; its field ``missing`` gives the reason for a missing file.

        Args:
            compare_with: ``champion``, a Git revision, or ``None`` for no comparison.

        Raises:
            ConfigurationError: Git has no such revision.
        """
        if compare_with is None:
            return None
        if compare_with == CHAMPION:
            return self._champion()
        return self._revision(compare_with)

    def _revision(self, revision: str) -> EarlierEvaluation:
        commit = self._commit(revision)
        name = commit[:7] if commit.startswith(revision) else f"{revision} ({commit[:7]})"

        def read(path: Path) -> bytes:
            import dvc.api  # reads files that Git tracks as well

            root = self._root()
            relative = path.absolute().resolve().relative_to(root.resolve()).as_posix()
            with dvc.api.open(relative, repo=str(root), rev=commit, mode="rb") as file:
                return file.read()

        return _read_evaluation(name, read, self._record, self._metrics)

    def _champion(self) -> EarlierEvaluation:
        from mlflow import MlflowClient

        from decodiff_pipeline.registry.versions import find_champion

        name = f"the champion of {self._model_name}"
        try:
            version = find_champion(self._model_name)
            if version is None:
                return EarlierEvaluation(
                    name, missing=f"the model {self._model_name} has no champion yet"
                )
            name = f"{CHAMPION} ({self._model_name} version {version.number})"
            logged = {file.path for file in MlflowClient().list_artifacts(version.run_id)}
        except Exception as error:
            cause = type(error).__name__
            return EarlierEvaluation(
                name, missing=f"MLflow could not be asked for {name} ({cause})"
            )

        def read(path: Path) -> bytes:
            if path.name not in logged:
                raise FileNotFoundError(path.name)
            return artifact_bytes(version.run_id, path.name)

        return _read_evaluation(name, read, self._record, self._metrics)

    def _commit(self, revision: str) -> str:
        rev_parse = ("rev-parse", "--verify", "--quiet", "--end-of-options")
        commit = git_output(self._root(), *rev_parse, f"{revision}^{{commit}}")
        if not commit:
            raise ConfigurationError(
                f"evaluation.compare_with is {revision!r}, and Git knows no such revision in "
                f"{self._root()}: correct it or fetch it, or set it to {CHAMPION!r} or null"
            )
        return commit

    def _root(self) -> Path:
        """Root of the Git repository; without one, the record's folder."""
        folder = self._record.absolute().parent
        return Path(git_output(folder, "rev-parse", "--show-toplevel") or folder)


def _read_evaluation(
    name: str, read: Callable[[Path], bytes], record_path: Path, metrics_path: Path
) -> EarlierEvaluation:
    """Read both files; `missing` names those that cannot be read."""
    import pandas as pd

    record: pd.DataFrame | None = None
    metrics: dict[str, Any] | None = None
    unreadable = []
    try:
        metrics = json.loads(read(metrics_path))
    except Exception as error:
        unreadable.append(f"no {metrics_path.name} ({type(error).__name__})")
    try:
        record = pd.read_parquet(io.BytesIO(read(record_path)))
    except Exception as error:
        unreadable.append(f"no {record_path.name} ({type(error).__name__})")
    missing = f"{name} has {' and '.join(unreadable)}" if unreadable else None
    return EarlierEvaluation(name, record, metrics, missing)
