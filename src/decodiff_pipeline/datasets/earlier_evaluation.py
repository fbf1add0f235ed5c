"""The evaluation of the champion, or of a Git revision, as a catalog dataset."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from decodiff_pipeline.data.provenance import git_output
from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.evaluation.comparison import EarlierEvaluation
from decodiff_pipeline.tracking.mlflow_values import artifact_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

CHAMPION = "champion"  # the model that the registry gives this alias


class EarlierEvaluationDataset(AbstractDataset[NoReturn, "EarlierEvaluations"]):
    """Looks up what an evaluation is compared with, when a node says what that is.

    Example:
        .. code-block:: yaml

            earlier_evaluations:
              type: decodiff_pipeline.datasets.earlier_evaluation.EarlierEvaluationDataset
              filepath: data/07_model_output/elpv/evaluation_record.parquet
              metrics: data/08_reporting/elpv/metrics.json
              model_name: decodiff-elpv
    """

    def __init__(
        self,
        *,
        filepath: str,
        metrics: str,
        model_name: str,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Name the files, which are found by these names in a revision and in an MLflow run.

        Args:
            filepath: The evaluation's record of its images (Parquet).
            metrics: Its metrics (JSON), relative to the same project.
            model_name: The model in the registry whose champion is meant.
        """
        self._record = Path(filepath)
        self._metrics = Path(metrics)
        self._model_name = model_name
        self.metadata = metadata

    def load(self) -> EarlierEvaluations:
        """Make the handle, without looking anywhere."""
        return EarlierEvaluations(self._record, self._metrics, self._model_name)

    def save(self, data: NoReturn) -> NoReturn:
        """Refuse: an evaluation writes its own record.

        Raises:
            DatasetError: Always.
        """
        raise DatasetError(
            "earlier evaluations are only read; save to evaluation_record and metrics"
        )

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._record), "model_name": self._model_name}


class EarlierEvaluations:
    """Finds earlier evaluations of the same data set.

    Args:
        record: Path of the record.
        metrics: Path of the metrics; both in the project, absolute or relative to its root.
    """

    def __init__(self, record: Path, metrics: Path, model_name: str) -> None:
        self._record = record
        self._metrics = metrics
        self._model_name = model_name

    def check(self, compare_with: str | None) -> None:
        """Notice a misspelt revision before any work; the champion may well not exist yet.

        Raises:
            ConfigurationError: Git knows no such revision.
        """
        if compare_with not in (None, CHAMPION):
            self._commit(str(compare_with))

    def load(self, compare_with: str | None) -> EarlierEvaluation | None:
        """Read an earlier evaluation, or say why there is none.

        Args:
            compare_with: ``champion``, a Git revision, or ``None`` for no comparison.

        Raises:
            ConfigurationError: Git knows no such revision.
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
            return _file_of_revision(self._root(), self._relative(path), commit)

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
        verified = ("rev-parse", "--verify", "--quiet", "--end-of-options")
        commit = git_output(self._root(), *verified, f"{revision}^{{commit}}")
        if not commit:
            raise ConfigurationError(
                f"evaluation.compare_with is {revision!r}, and Git knows no such revision in "
                f"{self._root()}: correct it or fetch it, or set it to {CHAMPION!r} or null"
            )
        return commit

    def _root(self) -> Path:
        """The repository's root; the folder itself where there is no repository."""
        folder = next(parent for parent in self._record.absolute().parents if parent.is_dir())
        return Path(git_output(folder, "rev-parse", "--show-toplevel") or folder)

    def _relative(self, path: Path) -> str:
        return path.absolute().resolve().relative_to(self._root().resolve()).as_posix()


def _read_evaluation(
    name: str, read: Callable[[Path], bytes], record_path: Path, metrics_path: Path
) -> EarlierEvaluation:
    """What can be read of an evaluation, and a sentence on what cannot."""
    import pandas as pd

    record: pd.DataFrame | None = None
    metrics: dict[str, Any] | None = None
    lacking = []
    try:
        metrics = json.loads(read(metrics_path))
    except Exception as error:
        lacking.append(f"no {metrics_path.name} ({type(error).__name__})")
    try:
        record = pd.read_parquet(io.BytesIO(read(record_path)))
    except Exception as error:
        lacking.append(f"no {record_path.name} ({type(error).__name__})")
    missing = f"{name} has {' and '.join(lacking)}" if lacking else None
    return EarlierEvaluation(name, record, metrics, missing)


def _file_of_revision(root: Path, path: str, commit: str) -> bytes:
    """A file as a commit has it, whether Git or DVC keeps its content."""
    import dvc.api

    with dvc.api.open(path, repo=str(root), rev=commit, mode="rb") as file:
        return file.read()
