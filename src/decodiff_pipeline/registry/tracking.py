"""One MLflow run whose failures never reach the work it describes."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.registry.mlflow_values import (
    MAX_TAG,
    METRICS_PER_BATCH,
    PARAMS_PER_BATCH,
    batches,
    first_line,
    flatten,
    numbers_in,
    redact,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from mlflow import MlflowClient
    from mlflow.entities import Metric

logger = logging.getLogger(__name__)

STEP_KEYS = ("step", "epoch")


class Tracker:
    """An MLflow run that is written to when it can be.

    The first call that fails makes the tracker go quiet: everything later is queued and sent by
    :meth:`finish`, and what still cannot be sent is named in one warning. So a dead server costs
    one time-out, and never the work.

    Args:
        tracking_uri: MLflow's store or server.
        experiment: Name of the experiment, created where it does not exist.
        artifact_root: Folder for the artifacts of a new experiment; ``None`` leaves it to the
            server.
        run_name: Name of the run.
        tags: Tags of the run.
    """

    def __init__(
        self,
        tracking_uri: str,
        experiment: str,
        *,
        artifact_root: Path | None,
        run_name: str,
        tags: Mapping[str, str],
    ) -> None:
        self.tracking_uri = tracking_uri
        self.experiment = experiment
        self.run_id: str | None = None
        self.experiment_id: str | None = None
        self.finished = False
        self._artifact_root = artifact_root
        self._run_name = run_name
        self._tags = {key: str(value)[:MAX_TAG] for key, value in tags.items()}
        self._started = _now()
        self._queue: list[tuple[str, Callable[[], None]]] = []
        self._offline = False
        self._send("the run itself", self._create_run)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log nested parameters, flattened with dots and cut to MLflow's length."""
        from mlflow.entities import Param

        flat = flatten(params, ".")
        batch = [Param(key, text_of(value)) for key, value in flat.items()]
        for part in batches(batch, PARAMS_PER_BATCH):
            self._send("parameters", partial(self._batch, params=part))

    def log_metrics(self, tree: Mapping[str, Any], what: str) -> None:
        """Log every finite number of a nested mapping, in one batch.

        Args:
            tree: See :func:`numbers_in`.
            what: Name of the data set it comes from, for the warning.
        """
        from mlflow.entities import Metric

        now = _now()
        self._send_metrics([Metric(k, v, now, 0) for k, v in numbers_in(tree).items()], what)

    def log_history(self, rows: Iterable[Mapping[str, Any]], what: str) -> None:
        """Log rows such as ``{"step": 10, "loss": 0.3}`` as curves.

        Args:
            rows: Each with ``step`` (or ``epoch``) and any numbers; ``time`` in seconds since
                1970 dates the row where it has one.
            what: Name of the data set it comes from, for the warning.
        """
        from mlflow.entities import Metric

        metrics = []
        for index, row in enumerate(rows):
            step = int(next((row[key] for key in STEP_KEYS if key in row), index))
            stamp = int(row["time"] * 1000) if "time" in row else self._started + index
            values = {key: value for key, value in row.items() if key not in ("step", "time")}
            metrics += [Metric(k, v, stamp, step) for k, v in numbers_in(values).items()]
        self._send_metrics(metrics, what)

    def log_artifact(self, path: Path, what: str) -> None:
        """Copy a file, or a folder under its own name, to the run's artifacts."""
        if not path.exists():  # such as the figures of a data set without test images
            logger.info("%s: there is nothing at %s to log", what, path)
            return

        def send() -> None:
            if path.is_dir():
                self._client.log_artifacts(self._id, str(path), path.name)
            else:
                self._client.log_artifact(self._id, str(path))

        self._send(f"{what} ({path})", send)

    def log_figures(self, figures: Any, path: Path) -> None:
        """Draw a matplotlib figure, or a mapping of names to figures, among the artifacts.

        Args:
            figures: Functions that make figures are called, as Kedro does for partitions.
            path: The file, or the folder of the mapping's PNG files; its name is kept.
        """
        if not isinstance(figures, dict):
            files = {path.name: figures}
        else:
            files = {f"{path.name}/{name}.png": figure for name, figure in figures.items()}
        for name, figure in files.items():

            def send(name: str = name, figure: Any = figure) -> None:
                drawn = figure() if callable(figure) else figure
                self._client.log_figure(self._id, drawn, name)

            self._send(f"figure {name}", send)

    def log_table(self, rows: Any, path: Path) -> None:
        """Log rows so that MLflow's UI shows them as a table.

        Args:
            rows: A DataFrame, or a sequence of mappings.
            path: The table is called as this file, with ``.json``.
        """
        import pandas as pd

        table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
        name = f"{path.stem}.json"
        self._send(f"table {name}", lambda: self._client.log_table(self._id, table, name))

    def tag_once(self, key: str, value: Callable[[], str]) -> None:
        """Set a tag that is costly to work out; later calls for the same key do nothing."""
        if key not in self._tags:
            self._tags[key] = value()
            self._send(f"tag {key}", partial(self._tag, key, self._tags[key]))

    def finish(self, status: str, *, tags: Mapping[str, str] | None = None) -> None:
        """Send what is queued and end the run; a second call does nothing.

        Args:
            status: ``FINISHED``, ``FAILED`` or ``KILLED``.
            tags: Last tags, such as the error.
        """
        if self.finished:
            return
        self.finished = True
        for key, value in (tags or {}).items():
            self._send(f"tag {key}", partial(self._tag, key, value))
        self._send(f"status {status}", partial(self._terminate, status))
        unsent = self._flush()
        if unsent:
            logger.warning(
                "MLflow at %s did not get: %s. The files are where the catalog has them; nothing "
                "else was lost.",
                redact(self.tracking_uri),
                ", ".join(dict.fromkeys(unsent)),
            )

    def _send(self, what: str, call: Callable[[], None]) -> None:
        if self._offline:
            self._queue.append((what, call))
            return
        try:
            call()
        except Exception as error:
            # MLflow lets its own errors, those of requests and those of SQLAlchemy through.
            if self._refuses(error):
                logger.warning("MLflow refused %s: %s", what, first_line(error))
                return
            self._offline = True
            self._queue.append((what, call))
            logger.warning(
                "MLflow at %s failed on %s (%s); the run goes on, and the rest is sent at its end",
                redact(self.tracking_uri),
                what,
                redact(first_line(error)),
            )

    def _flush(self) -> list[str]:
        """Send the queue in order until a call fails; return what was not sent."""
        while self._queue:
            try:
                self._queue[0][1]()
            except Exception as error:
                if not self._refuses(error):
                    return [what for what, _ in self._queue]
            self._queue.pop(0)
        return []

    def _refuses(self, error: Exception) -> bool:
        """Whether MLflow answers but does not take this value: trying again is of no use."""
        refusals = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}
        return self.run_id is not None and getattr(error, "error_code", None) in refusals

    def _send_metrics(self, metrics: Sequence[Metric], what: str) -> None:
        for part in batches(metrics, METRICS_PER_BATCH):
            self._send(f"metrics of {what}", partial(self._batch, metrics=part))

    @property
    def _client(self) -> MlflowClient:
        from mlflow import MlflowClient

        return MlflowClient(self.tracking_uri)

    @property
    def _id(self) -> str:
        if self.run_id is None:
            self._create_run()
        return str(self.run_id)

    def _create_run(self) -> None:
        self.experiment_id = self._find_or_create_experiment()
        run = self._client.create_run(self.experiment_id, self._started, self._tags, self._run_name)
        self.run_id = run.info.run_id

    def _find_or_create_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        client = self._client
        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            location = None if self._artifact_root is None else self._artifact_root.as_uri()
            try:
                return client.create_experiment(self.experiment, location)
            except MlflowException:
                # Another run may have created it since; if not, the first error is the one to see.
                found = client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            msg = (
                f"experiment {self.experiment!r} was deleted in MLflow; restore it with "
                f"`mlflow experiments restore -x {found.experiment_id}`"
            )
            raise ConfigurationError(msg)
        return str(found.experiment_id)

    def _batch(self, **entities: Any) -> None:
        self._client.log_batch(self._id, **entities)

    def _tag(self, key: str, value: str) -> None:
        self._client.set_tag(self._id, key, str(value)[:MAX_TAG])

    def _terminate(self, status: str) -> None:
        self._client.set_terminated(self._id, status)


def _now() -> int:
    return int(time.time() * 1000)
