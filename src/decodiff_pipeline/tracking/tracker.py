"""One MLflow run whose failures never reach the work it describes."""

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
# A server may take this much of a run's time, then it is left alone for PAUSE. Time-outs are
# shorter than that, so a server that is away costs one of them in a PAUSE.
SECONDS = 30.0
SHARE = 0.05
PAUSE = 600.0
SECONDS_AT_END = 30.0

_active: Tracker | None = None


def active_run_id() -> str | None:
    """MLflow's name of the run that this process is tracked by; ``None`` where it has none."""
    return None if _active is None or _active.finished else _active.run_id


class Tracker:
    """An MLflow run that is written to when it can be.

    Everything goes to a journal on the disk first, and from there to MLflow. A call that fails,
    or a server that takes more than its share of the time, makes the tracker leave MLflow alone
    for a while; what is left when the run ends waits in the journal for `upload_unsent`. May be
    used by several threads.

    Args:
        experiment: Name of the experiment, created where it does not exist.
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
        self._born = time.monotonic()
        self._spent = 0.0
        self._quiet_until = 0.0
        self._warned = False

    @property
    def run_id(self) -> str | None:
        """MLflow's name of the run; ``None`` while MLflow has not made it."""
        return self._journal.run_id

    @property
    def experiment_id(self) -> str | None:
        """MLflow's name of the experiment; ``None`` as for the run."""
        return self._journal.experiment_id

    def start(self) -> Tracker:
        """Make the run in MLflow; it is the active one until it ends."""
        global _active  # noqa: PLW0603
        _active = self
        with self._lock:
            self._deliver()
        return self

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log nested parameters, flattened with dots and cut to MLflow's length."""
        flat = flatten(without_secrets(params), ".")
        batch = [(key, text_of(value)) for key, value in flat.items()]
        for part in batches(batch, PARAMS_PER_BATCH):
            self._send("params", "parameters", dict(part))

    def log_metrics(self, tree: Mapping[str, Any], what: str, *, step: int = 0) -> None:
        """Log every finite number of a nested mapping, in one batch.

        Args:
            tree: See :func:`numbers_in`.
            what: Name of the data set it comes from, for the warning.
            step: Of these numbers.
        """
        now = _now()
        self._send_metrics([(k, v, now, step) for k, v in numbers_in(tree).items()], what)

    def log_history(self, rows: Iterable[Mapping[str, Any]], what: str) -> None:
        """Log rows such as ``{"step": 10, "loss": 0.3}`` as curves.

        Args:
            rows: Each with ``step`` (or ``epoch``) and any numbers; ``time`` in seconds since
                1970 dates the row where it has one.
            what: Name of the data set it comes from, for the warning.
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
        """Copy a file, or a folder under its own name, to the run's artifacts."""
        if not path.exists():  # such as the figures of a data set without test images
            logger.info("%s: there is nothing at %s to log", what, path)
            return
        data = {"path": str(path.absolute()), "fingerprint": fingerprint(path)}
        self._send("artifact", f"{what} ({path})", data)

    def log_table(self, rows: Any, path: Path) -> None:
        """Log rows so that MLflow's UI shows them as a table.

        Args:
            rows: A DataFrame, or a sequence of mappings.
            path: The table is called as this file, with ``.json``.
        """
        import pandas as pd

        table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
        name = f"{path.stem}.json"
        with self._lock:
            file = self._journal.place_for(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            # MLflow's own log_table appends: sent twice, the table would be twice as long.
            table.to_json(file, orient="split", index=False, date_format="iso")
            data = {"path": str(file.absolute()), "fingerprint": fingerprint(file)}
            self._send("artifact", f"table {name}", data)
            self._tables.append(name)
            shown = [{"path": name, "type": "table"} for name in dict.fromkeys(self._tables)]
            self._send("tags", f"table {name}", {"mlflow.loggedArtifacts": json.dumps(shown)})

    def log_data(self, describe: Callable[[], tuple[str, dict[str, Any]]]) -> None:
        """Name the data the run works with; only the first call counts.

        Args:
            describe: Makes the tag ``data_digest`` and the input, see
                `hooks.logged_data.describe_manifest`.
        """
        with self._lock:
            if self._data_logged:
                return
            self._data_logged = True
            digest, described = describe()
            self._send("tags", "tag data_digest", {"data_digest": digest})
            self._send("input", "data set", described)

    def finish(self, status: str, *, tags: Mapping[str, str] | None = None) -> None:
        """Send what is left and end the run; a second call does nothing.

        Args:
            status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        """
        with self._lock:
            if self.finished:
                return
            self.finished = True
            # On the disk before MLflow is asked: it may take long, and the process be killed.
            self._quiet_until = float("inf")
            if tags:
                self._send("tags", "tag " + ", ".join(tags), _tags(tags))
            self._send("end", f"status {status}", {"status": status, "time": _now()})
            self._send_the_rest()
            unsent = ["the run itself"] if self.run_id is None else []
            unsent += [record.what for record in self._journal.pending]
            self._journal.keep_files()
            if unsent:
                self._say_what_is_left(unsent)
            self._journal.close()

    def _send_the_rest(self) -> None:
        try:
            if len(self._journal.pending) > 1:  # may be too much: the status first
                self._uploader.send_end()
            limit = SECONDS_AT_END if self._is_server else float("inf")
            self._uploader.send(deadline=time.monotonic() + limit)
        except Exception as error:
            logger.info("MLflow is still away: %s", first_line(error))

    def _say_what_is_left(self, unsent: Sequence[str]) -> None:
        kept = f"Everything is in {self._journal.path.parent}; `{UPLOAD}` sends it."
        lost = "The files are where the catalog has them; nothing else was lost."
        logger.warning(
            "MLflow at %s did not get: %s. %s",
            redact(self.tracking_uri),
            ", ".join(dict.fromkeys(unsent)),
            kept if self._journal.on_disk else lost,
        )

    def _send_metrics(self, points: Sequence[tuple[str, float, int, int]], what: str) -> None:
        for part in batches(points, METRICS_PER_BATCH):
            self._send("metrics", f"metrics of {what}", {"points": list(part)})

    def _send(self, kind: str, what: str, data: dict[str, Any]) -> None:
        with self._lock:
            self._journal.append(kind, what, data)
            self._deliver()

    def _deliver(self) -> None:
        """Send what is pending, unless MLflow is left alone for now; never raises."""
        start = time.monotonic()
        if start < self._quiet_until:
            self._journal.keep_files()
            return
        try:
            self._uploader.send(deadline=start + self._time_left())
        except Exception as error:
            # MLflow lets its own errors, those of requests and those of SQLAlchemy through.
            what = self._journal.pending[0].what if self.run_id else "the run itself"
            self._leave_alone(f"failed on {what} ({first_line(error)})")
        finally:
            self._spent += time.monotonic() - start
        if self._time_left() < 0 and start >= self._quiet_until:
            self._leave_alone(f"is slow: it took {self._spent:.0f} s by now")

    def _time_left(self) -> float:
        if not self._is_server:
            return float("inf")
        return SECONDS + SHARE * (time.monotonic() - self._born) - self._spent

    def _leave_alone(self, why: str) -> None:
        self._quiet_until = time.monotonic() + PAUSE
        self._journal.keep_files()
        if not self._warned:
            self._warned = True
            logger.warning(
                "MLflow at %s %s; the run goes on, and the rest is sent later",
                redact(self.tracking_uri),
                why,
            )


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: str(value)[:MAX_TAG] for key, value in without_secrets(dict(tags)).items()}


def _now() -> int:
    return int(time.time() * 1000)
