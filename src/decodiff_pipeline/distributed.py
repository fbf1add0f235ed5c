"""Entry point of the worker processes of a stage, on one machine or several nodes.

On each node, in a project folder that all nodes share, a scheduler starts (docs/scaling.md):

    python -m decodiff_pipeline.distributed --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d \\
        --rdzv-endpoint HEAD:29400 training --env mvtec

The options before the stage are those of torchrun, which starts this module once per process. On
one machine, `decodiff_pipeline.compute.launch` starts it with a job file.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import signal
import socket
import sys
import threading
import time
import traceback
import uuid
from contextlib import suppress
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.compute.group import joined
from decodiff_pipeline.compute.launch import (
    ENTRY,
    ERROR,
    RESULT,
    WARNINGS,
    call,
    explained,
    hide_torch_errors,
)
from decodiff_pipeline.data.atomic import replacing
from decodiff_pipeline.deco.device import prefer_compiled, prefer_device
from decodiff_pipeline.errors import ConfigurationError, DecodiffError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decodiff_pipeline.compute.group import Group

POLL_SECONDS = 1.0  # interval of checks for the launcher
COMPUTE = "params:compute"  # input of the nodes whose work can be shared
CONNECT_SECONDS, ANSWER_SECONDS = 2.0, 10.0  # timeouts of the check of the rendezvous port
CLOCK_SECONDS = 60.0  # maximum difference of the clocks of two nodes
SAME_VERSIONS = ("torch", "diffusers", "numpy", "decodiff-pipeline")


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the processes of this node, or run as one of them; returns the exit status."""
    if "RANK" not in os.environ:
        return _start_node(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m decodiff_pipeline.distributed …")
    parser.add_argument("stage", nargs="?", help="a pipeline, such as training")
    parser.add_argument("--env", help="the Kedro environment, as for kedro run")
    parser.add_argument("--params", default="", help="as for kedro run")
    parser.add_argument("--job", type=Path, help="instead of a stage: a file of compute.launch")
    options = parser.parse_args(arguments)
    if (options.stage is None) == (options.job is None):
        parser.error("give the name of a pipeline, such as training")
    if options.job is not None:
        return _run_job(options.job)
    rank = int(os.environ["RANK"])
    _configure_logging(rank, "" if rank == 0 else f"rank {rank}: ")
    _exit_with_launcher(os.getppid())
    try:
        _run_stage(options.stage, options.env, options.params)
    except Exception as error:
        with_rank = explained(_report(error, rank), int(os.environ["WORLD_SIZE"]))
        sys.stderr.write(f"Error: {with_rank}\n")
        return 1
    return 0


def _start_node(arguments: Sequence[str]) -> int:
    """Start the processes of this node with torchrun; returns the exit status."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    hide_torch_errors()
    options = parse_args([*arguments])
    options.training_script_args = [options.training_script, *options.training_script_args]
    options.training_script, options.module = ENTRY, True
    try:
        _require_rendezvous(options.rdzv_endpoint)
        run(options)
    except DecodiffError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    except SignalException as error:
        sys.stderr.write(f"Error: {error.sigval.name} ended the processes of this node\n")
        return 1
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in sorted(error.failures.items())}
        sys.stderr.write(
            f"Error: processes of this node failed; exit codes by rank: {codes}; the lines above "
            "give the reason; repeat the command on all nodes: they go on where they stopped\n"
        )
        return 1
    return 0


def _require_rendezvous(endpoint: str) -> None:
    """Check that the rendezvous port is free or used by torchrun.

    If another program listens on the port, torchrun waits without a timeout.

    Raises:
        ConfigurationError: Another program listens on the port.
    """
    from torch.distributed import TCPStore

    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError):
        return  # this node is the first
    answered = threading.Event()

    def connect() -> None:
        with suppress(Exception):
            limit = timedelta(seconds=ANSWER_SECONDS)
            TCPStore(host, int(port), is_master=False, timeout=limit, wait_for_workers=False)
            answered.set()

    threading.Thread(target=connect, daemon=True).start()
    if not answered.wait(ANSWER_SECONDS):
        raise ConfigurationError(
            f"port {port} of {host} is taken by another program; give all nodes another one, "
            f"such as --rdzv-endpoint {host}:{int(port) + 1}"
        )


def _run_job(file: Path) -> int:
    """Run the job of a job file; writes its result or error report beside the file."""
    job, rank = json.loads(file.read_text()), int(os.environ["RANK"])
    _exit_with_launcher(job["launcher"] or os.getppid())
    _configure_logging(rank)
    _write_warnings(file.parent / WARNINGS.format(rank))
    if job["threads"]:
        os.environ["OMP_NUM_THREADS"] = str(job["threads"])  # torch reads it at import
    if job["launcher"]:  # one machine: gloo need not resolve the host name
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    try:
        _use_device(job["device"])
        prefer_compiled(job["compile"])
        with joined() as group:
            result = call(job["work"], job["job"], group)
            _write(file.parent / RESULT.format(rank), result)
    except BaseException as error:
        _write(file.parent / ERROR.format(rank), _report(error, rank))
        return 1
    return 0


def _run_stage(stage: str, env: str | None, params: str) -> None:
    """Run the nodes of a pipeline whose work can be shared. `kedro run` runs the others later.

    Raises:
        ConfigurationError: The pipeline does not exist or has no such node, or versions, clocks or
            project folders of the nodes differ.
    """
    from kedro.framework.cli.utils import _split_params
    from kedro.framework.project import pipelines
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project

    from decodiff_pipeline.compute.config import ComputeConfig
    from decodiff_pipeline.deco.device import resolve_device

    project = Path.cwd()
    bootstrap_project(project)
    runtime = _split_params(None, None, params) if params else {}  # type: ignore[arg-type]
    session: Any = KedroSession.create(project_path=project, env=env, runtime_params=runtime)
    with session:
        catalog = session.load_context().catalog
        pipeline = pipelines.get(stage)
        nodes = [] if pipeline is None else [n for n in pipeline.nodes if COMPUTE in n.inputs]
        if not nodes:
            raise ConfigurationError(
                f"several processes cannot share the pipeline {stage!r}; give latent_caching or "
                "training"
            )
        if int(os.environ["RANK"]):  # rank 0 logs which node runs
            logging.getLogger("kedro").setLevel(logging.WARNING)
        compute = ComputeConfig.model_validate(catalog.load(COMPUTE))
        prefer_device(compute.device)
        prefer_compiled(compute.compile)
        _use_device(resolve_device())
        with joined() as group:
            _require_same_versions(group)
            _require_shared(group, project / "data")
            for node in nodes:
                node.run({name: catalog.load(name) for name in node.inputs})


def _require_same_versions(group: Group) -> None:
    group.barrier()
    clocks = group.gather(time.time())
    installed = {name: version(name) for name in SAME_VERSIONS}
    versions = group.gather(installed | {"Python": platform.python_version()})
    for rank, other in enumerate(versions):
        differences = [
            f"{name} {value} and {other[name]}"
            for name, value in versions[0].items()
            if value != other[name]
        ]
        if differences:
            raise ConfigurationError(
                f"ranks 0 and {rank} have different versions: {', '.join(differences)}; install "
                "the same requirements.lock on all nodes"
            )
        if abs(clocks[rank] - clocks[0]) > CLOCK_SECONDS:
            raise ConfigurationError(
                f"the clocks of ranks 0 and {rank} differ by {abs(clocks[rank] - clocks[0]):.0f} "
                "seconds; synchronise the clocks of all nodes by NTP"
            )


def _require_shared(group: Group, folder: Path) -> None:
    file = folder / f".{group.broadcast(uuid.uuid4().hex)}"
    if group.first:
        folder.mkdir(exist_ok=True)
        file.touch()
    group.barrier()
    exists = group.gather(file.exists())
    if group.first:
        file.unlink()
    if not all(exists):
        ranks = [rank for rank, file_exists in enumerate(exists) if not file_exists]
        raise ConfigurationError(
            f"ranks {ranks} do not see what rank 0 writes to {folder}; start all nodes in one "
            "project folder on a shared file system"
        )


def _exit_with_launcher(launcher: int) -> None:
    """Kill this process when the launcher has ended, even if the launcher was killed."""

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _use_device(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    prefer_device(device)


def _configure_logging(rank: int, prefix: str = "") -> None:
    logging.basicConfig(
        format=f"%(asctime)s %(levelname)-7s {prefix}%(message)s", datefmt="%H:%M:%S"
    )
    level = logging.WARNING if rank else logging.INFO
    logging.getLogger("decodiff_pipeline").setLevel(level)


def _write_warnings(file: Path) -> None:
    """Write warnings also to a file, from which the launching process logs them."""

    class JSONLines(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return json.dumps([record.name, record.levelno, record.getMessage()])

    handler = logging.FileHandler(file)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(JSONLines())
    logging.getLogger("decodiff_pipeline").addHandler(handler)


def _report(error: BaseException, rank: int) -> dict[str, Any]:
    system = error if isinstance(error, OSError) else OSError()
    return {
        "rank": rank,
        "time": time.time(),
        "type": type(error).__name__,
        "message": system.strerror or str(error),
        "expected": isinstance(error, DecodiffError),
        "errno": system.errno,
        "filename": str(system.filename) if system.filename else None,
        "memory": "memory" in f"{type(error).__name__} {error}".lower(),
        "traceback": traceback.format_exc(),
    }


def _write(file: Path, value: Any) -> None:
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(value))


if __name__ == "__main__":
    sys.exit(main())
