"""The parameters `compute`, and how a stage is divided among processes on this machine."""

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
    """Device, processes and threads of a run.

    Attributes:
        device: Device of the networks; ``auto`` is the GPU if CUDA is available, else the CPU.
        processes: Worker processes that share the work of a stage. ``auto`` is one per GPU; on
            the CPU it is one per core if the work is long enough and the network is small, else
            one. With 1 the stage runs in the process of ``kedro run``.
        threads: Threads of each process. ``auto`` divides the cores among several processes; one
            process uses torch's default.
        compile: Whether to compile the networks of training and scoring with ``torch.compile``,
            which takes minutes at the start and speeds up steps on a GPU.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: Device = "auto"
    processes: Count = "auto"
    threads: Count = "auto"
    compile: bool = False


ONE_PROCESS = ComputeConfig(processes=1)


class Workers(NamedTuple):
    """Device, processes and threads of a stage.

    Attributes:
        device: Return value of :func:`~decodiff_pipeline.deco.device.resolve_device`.
        processes: Number of processes.
        threads: Threads of each process; None for torch's default.
    """

    device: str
    processes: int
    threads: int | None


def plan(config: ComputeConfig, *, most: int, worth: bool = True, what: str = "images") -> Workers:
    """Plan the processes and threads of a stage.

    Args:
        most: Number of parts into which the work can be divided.
        worth: Whether ``auto`` starts several processes on the CPU. Starting them takes some
            seconds, and a large network uses all cores in one process.
        what: Unit of ``most`` in the error message.

    Raises:
        ConfigurationError: The device does not exist, or there are more processes than cores,
            GPUs or parts of the work.
    """
    device = resolve_device(config.device)
    unit, units = ("core", available_cores()) if device == "cpu" else ("GPU", _gpus(device))
    if config.processes == "auto":
        processes = max(1, min(units, most)) if worth or device != "cpu" else 1
    else:
        processes = config.processes
        limit, cause = min((units, f"{unit}s for this run"), (most, what))
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
    """Plan the processes and threads of a stage on independent images.

    ``auto`` starts at most one process per 256 images: one process computes fewer images in the
    time that another takes to start. An explicit number is reduced to the number of images.

    Args:
        images: Number of images.
        small: Whether the network is small. A large one uses all cores in one process, and each
            further process needs the memory of another copy.
    """
    if config.processes == "auto":
        return plan(config, most=max(1, images // IMAGES_PER_PROCESS), worth=small)
    processes = min(config.processes, max(1, images))
    return plan(config.model_copy(update={"processes": processes}), most=images)


@contextmanager
def use_threads(number: int | None) -> Iterator[None]:
    """Set the number of torch's threads within the block; None keeps it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def available_cores() -> int:
    """Cores that this process may use: the lower of its CPU affinity and its cgroup's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, int(min(cores, _cgroup_quota())))


def _cgroup_quota() -> float:
    """CPU quota of the cgroup in cores; infinity without a limit."""
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
