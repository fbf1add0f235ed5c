"""One worker process. `decodiff_pipeline.compute.launch` starts it, under torch's launcher."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.compute.group import joined
from decodiff_pipeline.compute.launch import ERROR, RESULT, call
from decodiff_pipeline.data.atomic import replacing
from decodiff_pipeline.deco.device import prefer_device
from decodiff_pipeline.errors import DecodiffError

if TYPE_CHECKING:
    from collections.abc import Sequence

LOOKS_EVERY = 1.0  # seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Do this process's part of a job; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m decodiff_pipeline.distributed")
    parser.add_argument("--job", type=Path, required=True, help="written by the launcher")
    file = parser.parse_args(arguments).job
    job = json.loads(file.read_text())
    _end_with(job["launcher"])
    rank = int(os.environ["RANK"])
    if job["threads"]:
        os.environ["OMP_NUM_THREADS"] = str(job["threads"])  # read when torch is loaded
    # One machine: no name has to be resolved to find the way to the others.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    _log(logging.INFO if rank == 0 else logging.WARNING)
    try:
        _use_device(job["device"])
        with joined() as group:
            result = call(job["work"], job["job"], group)
            _write(file.parent / RESULT.format(rank), result)
    except BaseException as error:
        _write(file.parent / ERROR.format(rank), _report(error, rank))
        return 1
    return 0


def _end_with(launcher: int) -> None:
    """End this process when the launcher does, however that ends."""

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(LOOKS_EVERY)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _use_device(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    prefer_device(device)


def _log(level: int) -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("decodiff_pipeline").setLevel(level)


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
