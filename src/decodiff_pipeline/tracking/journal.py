"""What a run has for MLflow, on the disk before it is sent: an outage or a kill loses nothing."""

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
KEPT = "files"
LARGEST_COPY = 256 * 2**20  # bytes of a file or folder; of a larger one only the path is kept


@dataclass(frozen=True)
class RunHeader:
    """What makes a run in MLflow."""

    tracking_id: str  # found again by this tag, so that no run is made twice
    tracking_uri: str  # store or server, without a password
    experiment: str  # name of the experiment
    run_name: str  # name of the run
    started: int  # milliseconds since 1970
    tags: dict[str, str] = field(default_factory=dict)  # tags of the run


@dataclass(frozen=True)
class Record:
    """One thing to send."""

    number: int  # counts up within a run
    kind: str  # ``params``, ``metrics``, ``tags``, ``input``, ``artifact`` or ``end``
    what: str  # for messages
    data: dict[str, Any]  # plain JSON values, as `uploader.send` takes them


class Journal:
    """An append-only file of JSON lines for one run, locked while the run's process lives.

    The first line is the header; then come records, and marks of what MLflow has: ``created`` and
    ``delivered``. Every line is on the disk when it has been added. Where the disk does not take
    one, the journal goes on in memory, with one warning.
    """

    def __init__(self, path: Path, header: RunHeader) -> None:
        """Use `start` or `open`."""
        self.path = path
        self.header = header
        self.records: list[Record] = []
        self.delivered = -1  # number of the last record that MLflow has
        self.run_id: str | None = None
        self.experiment_id: str | None = None
        self._file: FileIO | None = None  # holds the lock, also where the disk takes no more
        self._full = False

    @classmethod
    def start(cls, folder: Path, header: RunHeader) -> Journal:
        """Begin the journal of a new run in a folder of its own within ``folder``."""
        journal = cls(folder / header.tracking_id / FILE, header)
        try:
            journal.path.parent.mkdir(parents=True, exist_ok=True)
            journal._file = _locked(journal.path, "xb+")
        except OSError as error:
            journal._give_up(error)
        journal._write({"run": asdict(header)})
        return journal

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Read and lock the journal of a run that is over, to finish what it left.

        Raises:
            BlockingIOError: The run goes on, or somebody else is sending it.
            TrackingError: A line within the file is damaged. Of the last one a part may be
                missing: the process was killed while it wrote it.
        """
        file = _locked(path, "r+b")
        *lines, half = file.read().split(b"\n")
        entries = [_entry(path, number, line) for number, line in enumerate(lines, 1)]
        if not entries or "run" not in entries[0]:
            raise TrackingError(f"{path} does not start with a run; remove {path.parent}")
        if half:
            file.truncate(file.seek(-len(half), os.SEEK_END))
        try:
            journal = cls(path, RunHeader(**entries[0]["run"]))
            for entry in entries[1:]:
                journal._take(entry)
        except (TypeError, KeyError) as error:
            msg = f"{path} is of another version of this program ({error}); remove {path.parent}"
            raise TrackingError(msg) from error
        journal._file = file
        return journal

    @property
    def pending(self) -> list[Record]:
        """Records that MLflow does not have, in order."""
        return [record for record in self.records if record.number > self.delivered]

    @property
    def ended(self) -> bool:
        """Whether the run has said how it ended."""
        return any(record.kind == "end" for record in self.records)

    @property
    def on_disk(self) -> bool:
        """Whether what is pending survives this process."""
        return self._file is not None and not self._full

    def append(self, kind: str, what: str, data: dict[str, Any]) -> None:
        """Add a record."""
        record = Record(self._next_number, kind, what, data)
        self.records.append(record)
        self._write(asdict(record))

    def mark_created(self, run_id: str, experiment_id: str) -> None:
        """The run exists in MLflow, and is empty."""
        self._mark({"created": run_id, "experiment_id": experiment_id})

    def mark_delivered(self, record: Record) -> None:
        """MLflow has this record and those before it."""
        self._mark({"delivered": record.number})

    def file_of(self, record: Record) -> Path | None:
        """Where an artifact is as it was when it was logged; ``None`` if it is not any more."""
        kept, original = self._kept(record), Path(record.data["path"])
        if kept.exists():
            return kept
        return original if fingerprint(original) == record.data["fingerprint"] else None

    def keep_files(self) -> None:
        """Copy the artifacts that wait: the next run writes its own in the same places."""
        for record in self.pending:
            if record.kind != "artifact" or not self.on_disk or self._kept(record).exists():
                continue
            path = self.file_of(record)
            if path is None or size(path) > LARGEST_COPY:
                continue
            try:
                _copy(path, self._kept(record))
            except OSError as error:
                logger.warning("%s could not be copied for later: %s", record.what, error)

    def place_for(self, name: str) -> Path:
        """Where to make the file of the next record, called ``name``."""
        return self.path.parent / KEPT / str(self._next_number) / name

    def close(self) -> None:
        """Open the lock, and remove everything if MLflow has it all."""
        if not self.pending:
            shutil.rmtree(self.path.parent / KEPT, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.path.unlink()  # last, so that a kill before leaves something to find
                self.path.parent.rmdir()
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def _next_number(self) -> int:
        return self.records[-1].number + 1 if self.records else 0

    def _kept(self, record: Record) -> Path:
        return self.path.parent / KEPT / str(record.number) / Path(record.data["path"]).name

    def _take(self, entry: dict[str, Any]) -> None:
        if "created" in entry:
            self.run_id, self.experiment_id = entry["created"], entry["experiment_id"]
            self.delivered = -1
        elif "delivered" in entry:
            self.delivered = entry["delivered"]
        else:
            self.records.append(Record(**entry))

    def _mark(self, entry: dict[str, Any]) -> None:
        self._take(entry)
        self._write(entry)

    def _write(self, entry: dict[str, Any]) -> None:
        if self._file is None or self._full:
            return
        try:
            append_atomically(self._file.fileno(), json.dumps(entry).encode() + b"\n")
            os.fsync(self._file.fileno())
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._full = True
        logger.warning(
            "%s cannot be written (%s): what MLflow does not take will be lost when the run ends",
            self.path,
            error.strerror or error,
        )


def journals(folder: Path) -> list[Path]:
    """Journals within a folder, the oldest first."""
    return sorted(folder.glob(f"*/{FILE}"))


def is_abandoned(path: Path) -> bool:
    """Whether no process writes or sends a journal."""
    try:
        with path.open("rb") as file:
            return filelock.lock_descriptor(file.fileno(), blocking=False)
    except OSError:
        return False


def fingerprint(path: Path) -> str:
    """Names, sizes and times of a file or of all files in a folder, as a digest."""
    digest = hashlib.sha256()
    for file in _files(path):
        status = file.stat()
        digest.update(f"{file.relative_to(path)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def size(path: Path) -> int:
    """Bytes of a file or of all files in a folder."""
    return sum(file.stat().st_size for file in _files(path))


def _locked(path: Path, mode: Literal["xb+", "r+b"]) -> FileIO:
    """Open a file under a lock that ends when it is closed or the process is gone."""
    file = path.open(mode, buffering=0)  # unbuffered: a line is one write
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


def _entry(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
        known = {"run", "created", "delivered", "kind"}.intersection(entry)
    except (ValueError, TypeError):
        known = set()
    if not known:
        raise TrackingError(
            f"line {number} of {path} is damaged; take it out to send the rest, or remove "
            f"{path.parent} to give up what is in it"
        )
    return dict(entry)
