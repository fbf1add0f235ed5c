"""Sends a journal's records to MLflow in order, during a run or after it."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.tracking.mlflow_values import UNKNOWN, first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from decodiff_pipeline.tracking.journal import Journal, Record

logger = logging.getLogger(__name__)

TRACKING_ID = "tracking_id"
SQLITE = "sqlite:///"
ARTIFACTS = "mlartifacts"
REFUSALS = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"})
# HTTP status, such as of a proxy that limits the file size. Not 403: a password can be corrected.
NEVER_TAKEN = frozenset({400, 413, 415, 422})


class MlflowUploader:
    """Sends the journal of a run to a store. Sending a record twice has no effect.

    Args:
        tracking_uri: Store or server, with the password if it needs one.
        fresh: Whether no process has tried to create the run in MLflow yet.
    """

    def __init__(self, journal: Journal, tracking_uri: str, *, fresh: bool) -> None:
        self._journal = journal
        self._uri = tracking_uri
        self._fresh = fresh
        self._first_use = True

    def send(self, deadline: float = float("inf")) -> None:
        """Send the pending records until ``deadline`` (seconds of ``time.monotonic``).

        Raises:
            Exception: MLflow did not take a record; this record and later ones stay pending.
        """
        self._require_run()
        for record in self._journal.pending:
            if time.monotonic() > deadline:
                return
            self._send(record)
            self._journal.mark_delivered(record)

    def send_end(self) -> None:
        """Send the run's final status ahead of the other records."""
        self._require_run()
        for record in self._journal.pending:
            if record.kind == "end":
                self._send(record)

    def find_run(self) -> None:
        """Find the run in this store, and create it if only another store had it.

        Raises:
            ConfigurationError: The run was deleted in MLflow.
        """
        self._require_run()
        try:
            run = self._client.get_run(str(self._journal.run_id))
        except Exception as error:
            if getattr(error, "error_code", None) != UNKNOWN:
                raise
            self._create_run()
            return
        if run.info.lifecycle_stage != "active":
            raise ConfigurationError(
                f"run {run.info.run_id} was deleted in MLflow: `mlflow runs restore --run-id "
                f"{run.info.run_id}` restores it; remove {self._journal.path.parent} to discard "
                "the unsent records"
            )

    def _send(self, record: Record) -> None:
        """Send one record; skip it with a warning if MLflow rejects it for good."""
        path = None
        if record.kind == "artifact":
            path = self._journal.file_of(record)
            if path is None:
                logger.warning(
                    "%s is not sent: the file has changed since it was logged", record.what
                )
                return
        try:
            send(self._client, str(self._journal.run_id), record.kind, record.data, path)
        except Exception as error:
            if not _is_refusal(error):
                raise
            logger.warning("MLflow refused %s: %s", record.what, first_line(error))

    def _require_run(self) -> None:
        if self._journal.run_id is None:
            self._create_run()

    def _create_run(self) -> None:
        header = self._journal.header
        experiment_id = find_or_create_experiment(self._client, header.experiment, self._uri)
        run_id = None if self._fresh else self._find_by_tag(experiment_id)
        self._fresh = False  # a request that failed may still have created the run
        if run_id is None:
            tags = {**header.tags, TRACKING_ID: header.tracking_id}
            client = self._client
            run = client.create_run(experiment_id, header.started, tags, header.run_name)
            run_id = run.info.run_id
        self._journal.mark_created(run_id, experiment_id)

    def _find_by_tag(self, experiment_id: str) -> str | None:
        query = f"tags.{TRACKING_ID} = '{self._journal.header.tracking_id}'"
        runs = self._client.search_runs([experiment_id], query)
        for duplicate in runs[1:]:  # a slow server creates a run at each retry
            self._client.delete_run(duplicate.info.run_id)
        return runs[0].info.run_id if runs else None

    @property
    def _client(self) -> MlflowClient:
        from mlflow import MlflowClient

        if not self._first_use or not self._uri.startswith(SQLITE):
            return MlflowClient(self._uri)
        # Two processes that open an empty database would both create its tables, and fail.
        database = _database(self._uri)
        database.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(database.with_name(f"{database.name}.lock")):
            client = MlflowClient(self._uri)
        self._first_use = False
        return client


def _is_refusal(error: Exception) -> bool:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return getattr(error, "error_code", None) in REFUSALS or status in NEVER_TAKEN


def _database(uri: str) -> Path:
    return Path(uri.removeprefix(SQLITE).partition("?")[0]).resolve()


def _artifacts_beside(uri: str) -> str | None:
    """URI of the artifact folder beside a SQLite file; ``None`` for a server, which has its own."""
    return (_database(uri).parent / ARTIFACTS).as_uri() if uri.startswith(SQLITE) else None


def find_or_create_experiment(client: MlflowClient, name: str, uri: str) -> str:
    """ID of the experiment of a store; a new one has its artifacts beside a SQLite file.

    Raises:
        ConfigurationError: The experiment was deleted in MLflow.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, _artifacts_beside(uri)))
        except MlflowException:
            # Another run may have created it meanwhile; otherwise the error stands.
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage != "active":
        raise ConfigurationError(
            f"experiment {name!r} was deleted in MLflow; restore it with "
            f"`mlflow experiments restore -x {experiment.experiment_id}`"
        )
    return str(experiment.experiment_id)


def send(
    client: MlflowClient, run_id: str, kind: str, data: dict[str, Any], path: Path | None
) -> None:
    """Send a record's data to a run; ``path`` is the artifact's file or folder."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    if kind == "params":
        client.log_batch(run_id, params=[Param(*item) for item in data.items()])
    elif kind == "metrics":
        client.log_batch(run_id, metrics=[Metric(*point) for point in data["points"]])
    elif kind == "tags":
        client.log_batch(run_id, tags=[RunTag(*item) for item in data.items()])
    elif kind == "input":
        tags = [InputTag("mlflow.data.context", data["context"])]
        client.log_inputs(run_id, [DatasetInput(Dataset(**data["dataset"]), tags)])
    elif kind == "end":
        client.set_terminated(run_id, data["status"], data["time"])
    elif path is not None and path.is_dir():
        client.log_artifacts(run_id, str(path), path.name)
    else:
        client.log_artifact(run_id, str(path))
