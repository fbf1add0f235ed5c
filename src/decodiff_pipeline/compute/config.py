"""The parameters `compute`, and what they come to on this machine."""

from __future__ import annotations

import math
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from decodiff_pipeline.deco.device import Device, resolve_device
from decodiff_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

CGROUP = Path("/sys/fs/cgroup")
IMAGES_PER_PROCESS = 256
Count = Annotated[int, Field(ge=1)] | Literal["auto"]


class ComputeConfig(BaseModel):
    """How much of the machine a run uses.

    Attributes:
        device: What computes; ``auto`` is the GPU where CUDA has one, else the processor.
        processes: Worker processes that share the work of a stage. ``auto`` is one per GPU; on
            the processor one per core where the work is long enough and the network small. 1
            computes in the process of ``kedro run`` itself.
        threads: Threads of each process. ``auto`` divides the cores among several processes, and
            leaves it to torch where there is one.
        compile: Compile the networks of training and scoring with ``torch.compile``: minutes at
            the start, and faster steps on a GPU.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: Device = "auto"
    processes: Count = "auto"
    threads: Count = "auto"
    compile: bool = False


ONE_PROCESS = ComputeConfig(processes=1)


class Workers(NamedTuple):
    """What a stage runs on.

    Attributes:
        device: As :func:`~decodiff_pipeline.deco.device.resolve_device` names it.
        processes: How many.
        threads: Of each process; None for as many as torch takes.
    """

    device: str
    processes: int
    threads: int | None


def plan(config: ComputeConfig, *, most: int, worth: bool = True, what: str = "images") -> Workers:
    """Decide how a stage is divided.

    Args:
        most: The largest number of processes that all have something to do.
        worth: Whether several processes are faster on the processor: starting them takes some
            seconds, and a large network uses all cores by itself.
        what: Unit of ``most``, for the message.

    Raises:
        ConfigurationError: There is no such device, or there are more processes than cores, GPUs
            or parts of the work.
    """
    device = resolve_device(config.device)
    units, places = ("core", available_cores()) if device == "cpu" else ("GPU", _gpus(device))
    if config.processes == "auto":
        processes = min(places, most) if worth or device != "cpu" else 1
        processes = max(1, processes)
    else:
        processes = config.processes
        limit, cause = min((places, f"{units}s for this run"), (most, what))
        if processes > max(1, limit):
            msg = (
                f"compute.processes is {processes}, but there are {limit} {cause}; set it to at "
                f"most {max(1, limit)}, or to auto"
            )
            raise ConfigurationError(msg)
    threads = None if config.threads == "auto" else config.threads
    if threads is None and processes > 1:
        threads = max(1, available_cores() // processes)
    return Workers(device, processes, threads)


def plan_images(config: ComputeConfig, images: int, *, small: bool = True) -> Workers:
    """Decide how work on independent images is divided.

    ``auto`` takes at most a process for every 256 images: fewer are done in the time that a
    process takes to start. A number of processes is obeyed as far as there are images.

    Args:
        small: Whether the network is small; a large one uses all cores by itself, and would lie
            in memory several times.
    """
    if config.processes == "auto":
        return plan(config, most=max(1, images // IMAGES_PER_PROCESS), worth=small)
    processes = min(config.processes, max(1, images))
    return plan(config.model_copy(update={"processes": processes}), most=images)


@contextmanager
def use_threads(number: int | None) -> Iterator[None]:
    """Within the block torch computes with so many threads; None for as many as it takes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def available_cores() -> int:
    """Cores that this process may use: its CPU affinity, within the quota of its cgroup."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, int(min(cores, _cgroup_quota())))


def _cgroup_quota() -> float:
    """Cores' worth of time that the cgroup grants; infinity without a limit."""
    try:
        if (CGROUP / "cpu.max").is_file():
            quota, period = (CGROUP / "cpu.max").read_text().split()
        else:
            quota, period = (
                (CGROUP / "cpu" / f"cpu.cfs_{name}_us").read_text().strip()
                for name in ("quota", "period")
            )
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # no cgroup, or "max"
        return math.inf


def _gpus(device: str) -> int:
    import torch

    return torch.cuda.device_count() if device.startswith("cuda") else 1
