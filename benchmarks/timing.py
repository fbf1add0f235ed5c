"""Side-by-side timing: both sides take turns, so that a busy machine is unfair to neither."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    # Makes the function that is timed, in the process that runs it.
    Side = Callable[[], Callable[[], object]]


def side_by_side(
    name: str,
    ours: Side,
    peer: Side,
    *,
    peer_name: str,
    images: int,
    rounds: int = 5,
    unit: str = "images/s",
    peer_images: int | None = None,
) -> dict[str, Any]:
    """Median images/s of two functions that process the same images, called in turns.

    Each runs in a process of its own, so that settings of the process and memory are its own too.
    Where both give an array, the record has the largest difference of the two.

    Args:
        name: Name of the record.
        ours: Makes this project's way; a function of a module, or a ``partial`` of one.
        peer: Makes the other way.
        peer_name: What the other way is.
        images: How many images one call processes.
        rounds: Calls of each that count, after one that warms up.
        unit: Of the speeds, where it is not images that are processed.
        peer_images: How many one call of the peer processes, where it does fewer.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(side)) for side in (ours, peer)]
        for worker in workers:
            worker.call()
        turns = [[worker.call() for worker in workers] for _ in range(rounds)]
        memory = [worker.ask("peak") for worker in workers]
        results = [worker.ask("result") for worker in workers]
    seconds = [statistics.median(times) for times in zip(*turns, strict=True)]
    speeds = [images / seconds[0], (peer_images or images) / seconds[1]]
    record = {
        "name": name,
        "ours": round(speeds[0], 3),
        "peer": round(speeds[1], 3),
        "peer_name": peer_name,
        "unit": unit,
        "ratio": round(speeds[0] / speeds[1], 3),
        "seconds": round(seconds[0], 3),
        "peak_mib": memory[0],
        "peer_peak_mib": memory[1],
    }
    if isinstance(results[0], np.ndarray):
        record["largest_difference"] = float(np.abs(results[0] - results[1]).max())
    return record


class Worker:
    """A process that makes a function once and calls it when told to.

    Args:
        side: Makes the function.
    """

    def __init__(self, side: Side) -> None:
        context = get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(side, there), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        self._here.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def call(self) -> float:
        """Seconds that one call takes."""
        return self.ask("call")

    def ask(self, request: str) -> Any:
        """The largest resident memory in MiB (``peak``), or what the last call gave."""
        self._here.send(request)
        return self._here.recv()


def status_mib(key: str) -> int:
    """A figure of this process's memory, MiB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split(f"{key}:")[1].split()[0]) // 1024


def _serve(side: Side, connection: Connection) -> None:
    function = side()
    connection.send("ready")
    result: object = None
    while True:
        request = connection.recv()
        if request == "peak":
            connection.send(status_mib("VmHWM"))  # `getrusage` starts at the parent's
        elif request == "result":
            connection.send(result if isinstance(result, np.ndarray) else None)
        else:
            start = time.perf_counter()
            result = function()
            connection.send(time.perf_counter() - start)
