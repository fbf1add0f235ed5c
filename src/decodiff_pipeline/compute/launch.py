"""Starts worker processes with the launcher of torch.distributed and collects their results."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from decodiff_pipeline import errors
from decodiff_pipeline.compute.group import Group, current_group
from decodiff_pipeline.deco.device import is_compiled_preferred

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from pydantic import BaseModel

    from decodiff_pipeline.compute.config import Workers

logger = logging.getLogger(__name__)

ENTRY = "decodiff_pipeline.distributed"
JOB, RESULT, ERROR = "job.json", "result-{}.json", "error-{}.json"
WARNINGS = "warnings-{}.jsonl"
# The launcher replaces the handlers of the signals that it is given. It gets one that nothing
# uses, because the handlers of the others belong to Kedro.
UNUSED_SIGNAL = signal.SIGUSR2
TERMINATION_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
SHUTDOWN_SECONDS = "5"
TORCH_LOGGERS = ("multiprocessing.api", "agent.server.api")


def launch(work: str, job: BaseModel, workers: Workers) -> list[Any]:
    """Run a function in several processes of this machine and wait for the results.

    Each process calls ``work`` with the job as JSON and its
    :class:`~decodiff_pipeline.compute.group.Group`. Rank 0 writes to the terminal; the warnings
    of the other ranks are logged at the end. If a process fails or this process is interrupted,
    all processes are terminated. If this process is itself a member of a group that a scheduler
    started, it starts no processes and calls ``work`` for its own part.

    Args:
        work: ``module:function`` of a function that takes the job and the group and returns a
            JSON value.
        job: Arguments of the work; its paths are absolute or relative to the working directory.
        workers: Device, processes and threads.

    Returns:
        The return value of each process, by rank.

    Raises:
        DecodiffError: The error of a process, with its rank in the message.
        OSError: The same for an error of the operating system, such as a full disk.
        ComputeError: A process was killed or raised another exception.
    """
    group = current_group()
    if group is not None:
        return group.gather(call(work, job.model_dump_json(), group))
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    with tempfile.TemporaryDirectory(prefix="decodiff-") as name, _signals_unwind():
        folder = Path(name)
        content = {"work": work, "job": job.model_dump_json(), "launcher": os.getpid(),
                   "device": workers.device, "threads": workers.threads,
                   "compile": is_compiled_preferred()}  # fmt: skip
        (folder / JOB).write_text(json.dumps(content))
        agent = elastic_launch(_launch_config(workers.processes, folder), sys.executable)
        try:
            agent("-m", ENTRY, "--job", str(folder / JOB))
        except ChildFailedError as error:
            raise _error_of_group(error.failures, folder, workers.processes) from None
        finally:
            _log_warnings(folder, workers.processes)
        return [
            json.loads((folder / RESULT.format(rank)).read_text())
            for rank in range(workers.processes)
        ]


def call(work: str, job: str, group: Group) -> Any:
    """Import ``module:function`` and call it."""
    module, function = work.split(":")
    return getattr(import_module(module), function)(job, group)


def _log_warnings(folder: Path, processes: int) -> None:
    """Log the warnings of all ranks but 0, each message once."""
    logged = set()
    for rank in range(processes):
        file = folder / WARNINGS.format(rank)
        for line in file.read_text().splitlines() if file.is_file() else ():
            with suppress(ValueError):  # a killed process may leave a truncated line
                name, level, message = json.loads(line)
                if rank and message not in logged:
                    origin = f"(rank {rank} of {processes} processes)"
                    logging.getLogger(name).log(level, "%s %s", message, origin)
                logged.add(message)


def _launch_config(processes: int, folder: Path) -> Any:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.launcher.api import LaunchConfig

    hide_torch_errors()
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SHUTDOWN_SECONDS)
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=folder.name,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",  # any free port
        local_addr="127.0.0.1",
        max_restarts=0,
        signals_to_handle=UNUSED_SIGNAL.name,
        logs_specs=DefaultLogsSpecs(
            log_dir=str(folder), redirects={rank: Std.ALL for rank in range(1, processes)}
        ),
    )


def hide_torch_errors() -> None:
    """Silence the errors that torch's launcher logs; the raised error has the same content."""
    for name in TORCH_LOGGERS:
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.CRITICAL)


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """Raise SystemExit within the block for signals that terminate the process by default."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (*TERMINATION_SIGNALS, UNUSED_SIGNAL)}
    for number in TERMINATION_SIGNALS:
        if before[number] == signal.SIG_DFL:
            signal.signal(number, _exit)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _error_of_group(failures: Any, folder: Path, processes: int) -> Exception:
    """The error of a failed group: a kill, else the first expected error, else the first error."""
    for rank, failure in sorted(failures.items()):
        # SIGTERM comes from the launcher, which terminates the other processes after a failure.
        if failure.exitcode < 0 and -failure.exitcode != signal.SIGTERM:
            name = signal.Signals(-failure.exitcode).name
            return errors.ComputeError(
                f"rank {rank} of {processes} processes was ended by {name}, as the system does "
                "when memory runs out; give the same command again to continue where it stopped; "
                "--params compute.processes=1 needs less memory"
            )
    reports = [json.loads(file.read_text()) for file in sorted(folder.glob(ERROR.format("*")))]
    reports.sort(key=lambda report: (not report["expected"], report["time"]))
    if not reports:
        codes = {rank: failure.exitcode for rank, failure in sorted(failures.items())}
        return errors.ComputeError(
            f"processes ended without an error message; exit codes by rank: {codes}"
        )
    return explained(reports[0], processes)


def explained(report: dict[str, Any], processes: int) -> Exception:
    """The exception of a process's error report, with the rank in its message."""
    origin = f"(rank {report['rank']} of {processes} processes)"
    if report["expected"]:
        return getattr(errors, report["type"])(f"{report['message']} {origin}")
    if report["errno"] is not None:
        return OSError(report["errno"], f"{report['message']} {origin}", report["filename"])
    logger.error("%s", report["traceback"])
    cure = "the lines above have the traceback"
    if report["memory"]:
        cure = "memory ran out: set compute.processes or the stage's batch_size to a lower value"
    first_line = (report["message"].splitlines() or [""])[0]
    return errors.ComputeError(f"{report['type']}: {first_line} {origin}; {cure}")
