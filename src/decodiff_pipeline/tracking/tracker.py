"""An MLflow run whose tracking errors never interrupt the run itself."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.tracking.journal import Journal, RunHeader, fingerprint
from decodiff_pipeline.tracking.mlflow_values import (
    MAX_TAG,
    METRICS_PER_BATCH,
    PARAMS_PER_BATCH,
    batches,
    first_line,
    flatten,
    numbers_in,
    text_of,
)
from decodiff_pipeline.tracking.redaction import redact, without_secrets
from decodiff_pipeline.tracking.uploader import SQLITE, MlflowUploader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

STEP_KEYS = ("step", "epoch")
UPLOAD = "python -m decodiff_pipeline.tracking.upload_unsent"
# A server may take SECONDS plus SHARE of a run's time; then no request is sent for PAUSE seconds.
# An unreachable server therefore costs one request timeout per PAUSE.
SECONDS = 30.0
SHARE = 0.05
PAUSE = 600.0
SECONDS_AT_END = 30.0  # time limit for the upload when the run ends

_active: Tracker | None = None


def active_run_id() -> str | None:
    """Run id of this process's active run; ``None`` without one."""
    return None if _active is None or _active.finished else _active.run_id


class Tracker:
    """An MLflow run that is written through a journal.

    Records go to a journal on disk first, then to MLflow. If a request fails or the server is too
    slow, the tracker pauses uploads. Records that MLflow does not have when the run ends stay in
    the journal for `upload_unsent`. Methods are thread-safe.

    Args:
        experiment: Name of the experiment, which is created if it does not exist.
        unsent: Folder of the journals.
    """

    def __init__(
        self,
        tracking_uri: str,
        experiment: str,
        *,
        run_name: str,
        tags: Mapping[str, str],
        unsent: Path,
    ) -> None:
        self.tracking_uri = tracking_uri
        self.experiment = experiment
        self.finished = False
        header = RunHeader(
            tracking_id=f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:12]}",
            tracking_uri=redact(tracking_uri),
            experiment=experiment,
            run_name=run_name,
            started=_now(),
            tags=_tags(tags),
        )
        self._journal = Journal.start(unsent, header)
        self._uploader = MlflowUploader(self._journal, tracking_uri, fresh=True)
        self._lock = threading.RLock()
        self._data_logged = False
        self._tables: list[str] = []
        self._is_server = not tracking_uri.startswith(SQLITE)
        self._created_at = time.monotonic()
        self._seconds_spent = 0.0
        self._paused_until = 0.0
        self._warned = False

    @property
    def run_id(self) -> str | None:
        """Run id; ``None`` until MLflow has created the run."""
        return self._journal.run_id

    @property
    def experiment_id(self) -> str | None:
        """Experiment id; ``None`` until MLflow has created the run."""
        return self._journal.experiment_id

    def start(self) -> Tracker:
        """Create the run in MLflow and make it this process's active run."""
        global _active  # noqa: PLW0603
        _active = self
        with self._lock:
            self._deliver()
        return self

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log nested parameters, flattened with dots and truncated to MLflow's limit."""
        flat = flatten(without_secrets(params), ".")
        batch = [(key, text_of(value)) for key, value in flat.items()]
        for part in batches(batch, PARAMS_PER_BATCH):
            self._send("params", "parameters", dict(part))

    def log_metrics(self, tree: Mapping[str, Any], what: str) -> None:
        """Log every finite number of a nested mapping.

        Args:
            tree: See :func:`numbers_in`.
            what: Name of the catalog entry, for warnings.
        """
        now = _now()
        self._send_metrics([(k, v, now, 0) for k, v in numbers_in(tree).items()], what)

    def log_history(self, rows: Iterable[Mapping[str, Any]], what: str) -> None:
        """Log rows such as ``{"step": 10, "loss": 0.3}`` as curves.

        Args:
            rows: Mappings with ``step`` (or ``epoch``), numbers, and optionally ``time`` in seconds
                since 1970.
            what: Name of the catalog entry, for warnings.
        """
        points = []
        for index, row in enumerate(rows):
            step = int(next((row[key] for key in STEP_KEYS if key in row), index))
            started = self._journal.header.started
            stamp = int(row["time"] * 1000) if "time" in row else started + index
            values = {key: value for key, value in row.items() if key not in ("step", "time")}
            points += [(k, v, stamp, step) for k, v in numbers_in(values).items()]
        self._send_metrics(points, what)

    def log_artifact(self, path: Path, what: str) -> None:
        """Log a file, or a folder under its own name, as artifacts."""
        if not path.exists():  # such as the figures of a data set without test images
            logger.info("%s: %s does not exist and is not logged", what, path)
            return
        data = {"path": str(path.absolute()), "fingerprint": fingerprint(path)}
        self._send("artifact", f"{what} ({path})", data)

    def log_table(self, rows: Any, path: Path) -> None:
        """Log rows that MLflow's UI shows as a table.

        Args:
            rows: A DataFrame, or a sequence of mappings.
            path: File of the rows; the artifact has its stem and ``.json``.
        """
        import pandas as pd

        table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
        name = f"{path.stem}.json"
        with self._lock:
            file = self._journal.place_for(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            # MLflow's log_table appends, so a repeated upload would duplicate the rows.
            table.to_json(file, orient="split", index=False, date_format="iso")
            data = {"path": str(file.absolute()), "fingerprint": fingerprint(file)}
            self._send("artifact", f"table {name}", data)
            self._tables.append(name)
            tables = [{"path": name, "type": "table"} for name in dict.fromkeys(self._tables)]
            self._send("tags", f"table {name}", {"mlflow.loggedArtifacts": json.dumps(tables)})

    def log_data(self, describe: Callable[[], tuple[str, dict[str, Any]]]) -> None:
        """Log the run's data set; only the first call has an effect.

        Args:
            describe: Returns the tag ``data_digest`` and MLflow's dataset input, see
                `hooks.run_content.describe_manifest`.
        """
        with self._lock:
            if self._data_logged:
                return
            self._data_logged = True
            digest, dataset_input = describe()
            self._send("tags", "tag data_digest", {"data_digest": digest})
            self._send("input", "data set", dataset_input)

    def finish(self, status: str, *, tags: Mapping[str, str] | None = None) -> None:
        """Send the pending records and end the run; a second call has no effect."""
        with self._lock:
            if self.finished:
                return
            self.finished = True
            # Write the records to disk before any request: the process may be killed meanwhile.
            self._paused_until = float("inf")
            if tags:
                self._send("tags", "tag " + ", ".join(tags), _tags(tags))
            self._send("end", f"status {status}", {"status": status, "time": _now()})
            self._send_pending()
            unsent = ["the run itself"] if self.run_id is None else []
            unsent += [record.what for record in self._journal.pending]
            self._journal.keep_files()
            if unsent:
                self._warn_of_unsent(unsent)
            self._journal.close()

    def _send_pending(self) -> None:
        try:
            if len(self._journal.pending) > 1:  # the time may not suffice: the status first
                self._uploader.send_end()
            limit = SECONDS_AT_END if self._is_server else float("inf")
            self._uploader.send(deadline=time.monotonic() + limit)
        except Exception as error:
            logger.info("MLflow still does not answer: %s", first_line(error))

    def _warn_of_unsent(self, unsent: Sequence[str]) -> None:
        stored = f"The records are in {self._journal.path.parent}; `{UPLOAD}` sends them."
        lost = "These records are lost. The outputs of the run are stored as the catalog says."
        logger.warning(
            "MLflow at %s did not get: %s. %s",
            redact(self.tracking_uri),
            ", ".join(dict.fromkeys(unsent)),
            stored if self._journal.on_disk else lost,
        )

    def _send_metrics(self, points: Sequence[tuple[str, float, int, int]], what: str) -> None:
        for part in batches(points, METRICS_PER_BATCH):
            self._send("metrics", f"metrics of {what}", {"points": list(part)})

    def _send(self, kind: str, what: str, data: dict[str, Any]) -> None:
        with self._lock:
            self._journal.append(kind, what, data)
            self._deliver()

    def _deliver(self) -> None:
        """Send the pending records unless uploads are paused; never raises."""
        start = time.monotonic()
        if start < self._paused_until:
            self._journal.keep_files()
            return
        try:
            self._uploader.send(deadline=start + self._time_left())
        except Exception as error:
            # MLflow raises its own errors and those of requests and SQLAlchemy.
            what = self._journal.pending[0].what if self.run_id else "the run itself"
            self._pause(f"failed on {what} ({first_line(error)})")
        finally:
            self._seconds_spent += time.monotonic() - start
        if self._time_left() < 0 and start >= self._paused_until:
            self._pause(f"is slow: requests took {self._seconds_spent:.0f} s so far")

    def _time_left(self) -> float:
        if not self._is_server:
            return float("inf")
        return SECONDS + SHARE * (time.monotonic() - self._created_at) - self._seconds_spent

    def _pause(self, reason: str) -> None:
        self._paused_until = time.monotonic() + PAUSE
        self._journal.keep_files()
        if not self._warned:
            self._warned = True
            logger.warning(
                "MLflow at %s %s; the run goes on, and its records are sent later",
                redact(self.tracking_uri),
                reason,
            )


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: str(value)[:MAX_TAG] for key, value in without_secrets(dict(tags)).items()}


def _now() -> int:
    return int(time.time() * 1000)
