"""Starts worker processes through the launcher of torch.distributed, and ends all of them."""

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
# The launcher replaces the handlers of the signals it is told; Kedro's run needs its own.
UNUSED_SIGNAL = signal.SIGUSR2
ENDING = (signal.SIGTERM, signal.SIGHUP)
SHUTDOWN_SECONDS = "5"
TORCH_LOGGERS = ("multiprocessing.api", "agent.server.api")


def launch(work: str, job: BaseModel, workers: Workers) -> list[Any]:
    """Do a job in several processes of this machine, and wait for them.

    Each process calls ``work`` with the job as JSON and its
    :class:`~decodiff_pipeline.compute.group.Group`. Process 0 has the terminal. When one process
    fails or this one is interrupted, all are ended. Within a group that a scheduler has started,
    this process does its own part of the job. Warnings of all processes are logged in the end.

    Args:
        work: ``module:function``, which takes the job and the group and returns a JSON value.
        job: What is to be done; paths in it are absolute or relative to the working folder.

    Returns:
        What each process returned, by rank.

    Raises:
        DecodiffError: What a process raised, naming its rank.
        ComputeError: A process was killed, or failed in an unexpected way.
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
            raise _cause(error.failures, folder, workers.processes) from None
        finally:
            _log_warnings(folder, workers.processes)
        return [
            json.loads((folder / RESULT.format(rank)).read_text())
            for rank in range(workers.processes)
        ]


def call(work: str, job: str, group: Group) -> Any:
    """Call the function that ``module:function`` names."""
    module, function = work.split(":")
    return getattr(import_module(module), function)(job, group)


def _log_warnings(folder: Path, processes: int) -> None:
    """Log what the processes but the first have warned of, the same once."""
    said = set()
    for rank in range(processes):
        file = folder / WARNINGS.format(rank)
        for line in file.read_text().splitlines() if file.is_file() else ():
            with suppress(ValueError):  # a killed process may have left half a line
                name, level, message = json.loads(line)
                if rank and message not in said:
                    where = f"(rank {rank} of {processes} processes)"
                    logging.getLogger(name).log(level, "%s %s", message, where)
                said.add(message)


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
    """Leave out what torch's launcher logs of a failure: it stands in the error that is raised."""
    for name in TORCH_LOGGERS:
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.CRITICAL)


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """Within the block a signal that would end this process at once raises SystemExit instead."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (*ENDING, UNUSED_SIGNAL)}
    for number in ENDING:
        if before[number] == signal.SIG_DFL:
            signal.signal(number, _exit)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _cause(failures: Any, folder: Path, processes: int) -> Exception:
    """The error that says best why the processes ended."""
    for rank, failure in sorted(failures.items()):
        # Those that the launcher ends itself get SIGTERM.
        if failure.exitcode < 0 and -failure.exitcode != signal.SIGTERM:
            name = signal.Signals(-failure.exitcode).name
            return errors.ComputeError(
                f"rank {rank} of {processes} processes was ended by {name}, as the system does "
                "where memory runs out; give the same command again: it goes on where it stopped, "
                "and with --params compute.processes=1 it needs less memory"
            )
    reports = [json.loads(file.read_text()) for file in sorted(folder.glob(ERROR.format("*")))]
    reports.sort(key=lambda report: (not report["expected"], report["time"]))
    if not reports:
        codes = {rank: failure.exitcode for rank, failure in sorted(failures.items())}
        return errors.ComputeError(f"processes ended without a message, with exit codes {codes}")
    return explained(reports[0], processes)


def explained(report: dict[str, Any], processes: int) -> Exception:
    """The error that a process's report describes, naming its rank."""
    where = f"(rank {report['rank']} of {processes} processes)"
    if report["expected"]:
        return getattr(errors, report["type"])(f"{report['message']} {where}")
    if report["errno"] is not None:
        return OSError(report["errno"], f"{report['message']} {where}", report["filename"])
    logger.error("%s", report["traceback"])
    cure = "the lines above say where"
    if report["memory"]:
        cure = "memory ran out: set compute.processes or the stage's batch_size to less"
    line = (report["message"].splitlines() or [""])[0]
    return errors.ComputeError(f"{report['type']}: {line} {where}; {cure}")
