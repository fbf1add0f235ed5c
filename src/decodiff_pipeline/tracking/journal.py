"""The journal of a tracked run: what it sends to MLflow is written to disk first.

An outage of the server or a killed process therefore loses nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from decodiff_pipeline.data.atomic import append_atomically, replacing, replacing_folder
from decodiff_pipeline.errors import TrackingError

if TYPE_CHECKING:
    from io import FileIO
    from typing import Literal

logger = logging.getLogger(__name__)

FOLDER = "mlflow_unsent"
FILE = "journal.jsonl"
KEPT = "files"  # folder of the copied artifacts
LARGEST_COPY = 256 * 2**20  # bytes; of a larger file or folder only the path is stored


@dataclass(frozen=True)
class RunHeader:
    """What is needed to create a run in MLflow."""

    tracking_id: str  # unique tag by which the run is found, so that it is not created twice
    tracking_uri: str  # store or server, without a password
    experiment: str  # name
    run_name: str
    started: int  # milliseconds since 1970
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """One request to MLflow."""

    number: int  # consecutive within a run
    kind: str  # ``params``, ``metrics``, ``tags``, ``input``, ``artifact`` or ``end``
    what: str  # description for messages
    data: dict[str, Any]  # JSON values, see `uploader.send`


class Journal:
    """An append-only file of JSON lines for one run, locked while the run's process is alive.

    The first line is the header. The other lines are records, or acknowledgements of MLflow:
    ``created`` and ``delivered``. Each line is synchronised to disk when it is added. If the disk
    cannot take a line, the journal logs one warning and continues in memory.
    """

    def __init__(self, path: Path, header: RunHeader) -> None:
        """Create an empty journal in memory; use `start` or `open` instead."""
        self.path = path
        self.header = header
        self.records: list[Record] = []
        self.delivered = -1  # number of the last record that MLflow has
        self.run_id: str | None = None
        self.experiment_id: str | None = None
        self._file: FileIO | None = None  # holds the lock, even if the disk is full
        self._full = False

    @classmethod
    def start(cls, folder: Path, header: RunHeader) -> Journal:
        """Start the journal of a new run, in its own subfolder of ``folder``."""
        journal = cls(folder / header.tracking_id / FILE, header)
        try:
            journal.path.parent.mkdir(parents=True, exist_ok=True)
            journal._file = _open_locked(journal.path, "xb+")
        except OSError as error:
            journal._stop_writing(error)
        journal._write({"run": asdict(header)})
        return journal

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Read and lock the journal of a run that has ended.

        An incomplete last line is removed: the process was killed while it wrote that line.

        Raises:
            BlockingIOError: The run is still active, or another process sends the journal.
            TrackingError: A line before the last one is damaged, or another version of this
                package wrote the file.
        """
        file = _open_locked(path, "r+b")
        *lines, incomplete = file.read().split(b"\n")
        entries = [_parse_line(path, number, line) for number, line in enumerate(lines, 1)]
        if not entries or "run" not in entries[0]:
            raise TrackingError(f"{path} does not start with a run; remove {path.parent}")
        if incomplete:
            file.truncate(file.seek(-len(incomplete), os.SEEK_END))
        try:
            journal = cls(path, RunHeader(**entries[0]["run"]))
            for entry in entries[1:]:
                journal._apply(entry)
        except (TypeError, KeyError) as error:
            raise TrackingError(
                f"{path} was written by another version of this package ({error}); remove "
                f"{path.parent}"
            ) from error
        journal._file = file
        return journal

    @property
    def pending(self) -> list[Record]:
        """Records that MLflow does not have yet, in order."""
        return [record for record in self.records if record.number > self.delivered]

    @property
    def ended(self) -> bool:
        """Whether the journal contains the run's final status."""
        return any(record.kind == "end" for record in self.records)

    @property
    def on_disk(self) -> bool:
        """Whether the pending records survive this process."""
        return self._file is not None and not self._full

    def append(self, kind: str, what: str, data: dict[str, Any]) -> None:
        """Add a record."""
        record = Record(self._next_number, kind, what, data)
        self.records.append(record)
        self._write(asdict(record))

    def mark_created(self, run_id: str, experiment_id: str) -> None:
        """Record that the run exists in MLflow and is empty."""
        self._acknowledge({"created": run_id, "experiment_id": experiment_id})

    def mark_delivered(self, record: Record) -> None:
        """Record that MLflow has this record and all before it."""
        self._acknowledge({"delivered": record.number})

    def file_of(self, record: Record) -> Path | None:
        """Path of an artifact's content as it was logged; ``None`` if it has changed since."""
        copy, original = self._copy_path(record), Path(record.data["path"])
        if copy.exists():
            return copy
        return original if fingerprint(original) == record.data["fingerprint"] else None

    def keep_files(self) -> None:
        """Copy the pending artifacts, because the next run overwrites the files."""
        for record in self.pending:
            copy = self._copy_path(record) if record.kind == "artifact" else None
            if copy is None or not self.on_disk or copy.exists():
                continue
            path = self.file_of(record)
            if path is None or size(path) > LARGEST_COPY:
                continue
            try:
                _copy(path, copy)
            except OSError as error:
                logger.warning("%s could not be copied for a later upload: %s", record.what, error)

    def place_for(self, name: str) -> Path:
        """Path of a file called ``name`` that belongs to the next record."""
        return self.path.parent / KEPT / str(self._next_number) / name

    def close(self) -> None:
        """Release the lock; remove the journal if no record is pending."""
        if not self.pending:
            shutil.rmtree(self.path.parent / KEPT, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.path.unlink()  # last, so that an interrupted removal is found again
                self.path.parent.rmdir()
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def _next_number(self) -> int:
        return self.records[-1].number + 1 if self.records else 0

    def _copy_path(self, record: Record) -> Path:
        return self.path.parent / KEPT / str(record.number) / Path(record.data["path"]).name

    def _apply(self, entry: dict[str, Any]) -> None:
        if "created" in entry:
            self.run_id, self.experiment_id = entry["created"], entry["experiment_id"]
            self.delivered = -1
        elif "delivered" in entry:
            self.delivered = entry["delivered"]
        else:
            self.records.append(Record(**entry))

    def _acknowledge(self, entry: dict[str, Any]) -> None:
        self._apply(entry)
        self._write(entry)

    def _write(self, entry: dict[str, Any]) -> None:
        if self._file is None or self._full:
            return
        try:
            append_atomically(self._file.fileno(), json.dumps(entry).encode() + b"\n")
            os.fsync(self._file.fileno())
        except OSError as error:
            self._stop_writing(error)

    def _stop_writing(self, error: OSError) -> None:
        self._full = True
        logger.warning(
            "%s cannot be written (%s): what MLflow has not received when the run ends is lost",
            self.path,
            error.strerror or error,
        )


def journals(folder: Path) -> list[Path]:
    """Paths of the journals in a folder, the oldest first."""
    return sorted(folder.glob(f"*/{FILE}"))


def is_abandoned(path: Path) -> bool:
    """Whether no process holds the journal's lock."""
    try:
        with path.open("rb") as file:
            return filelock.lock_descriptor(file.fileno(), blocking=False)
    except OSError:
        return False


def fingerprint(path: Path) -> str:
    """SHA-256 of the names, sizes and modification times of a file or a folder's files."""
    digest = hashlib.sha256()
    for file in _files(path):
        status = file.stat()
        digest.update(f"{file.relative_to(path)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def size(path: Path) -> int:
    """Size in bytes of a file or of all files in a folder."""
    return sum(file.stat().st_size for file in _files(path))


def _open_locked(path: Path, mode: Literal["xb+", "r+b"]) -> FileIO:
    """Open a file with a lock that is released when the file is closed or the process ends."""
    file = path.open(mode, buffering=0)  # unbuffered: one write per line
    try:
        if not filelock.lock_descriptor(file.fileno(), blocking=False):
            raise BlockingIOError(errno.EWOULDBLOCK, "another process holds its lock", str(path))
    except OSError:
        file.close()
        raise
    return file


def _files(path: Path) -> list[Path]:
    return sorted(file for file in (path, *path.rglob("*")) if file.is_file())


def _copy(path: Path, target: Path) -> None:
    if path.is_dir():
        with replacing_folder(target) as temporary:
            shutil.copytree(path, temporary, dirs_exist_ok=True)
    else:
        with replacing(target) as temporary:
            shutil.copyfile(path, temporary)


def _parse_line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
        keys = {"run", "created", "delivered", "kind"}.intersection(entry)
    except (ValueError, TypeError):
        keys = set()
    if not keys:
        raise TrackingError(
            f"line {number} of {path} is damaged; delete the line to send the rest, or remove "
            f"{path.parent} to discard the run's unsent records"
        )
    return dict(entry)
