"""The demo's training step by two processes of one thread, against one process of one thread.

nano, Muon, batches of 32 latents of 128² images, clipping and moving average included, in bfloat16
where the processor has it and in float32. The second process is a child of the timed one, as a
launcher would start it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.timing import side_by_side
from decodiff_pipeline.compute.group import ALONE, Group, joined
from decodiff_pipeline.deco.config import CorruptionConfig
from decodiff_pipeline.deco.device import keep_freed_memory
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.deco.unet import build_unet
from decodiff_pipeline.training.batches import Batch, generator
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.objective import deviation_loss
from decodiff_pipeline.training.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

BATCH, CHANNELS, SIDE, CATEGORIES = 32, 4, 16, 2
STEPS = 2  # a call
# Name of the record -> `training.bfloat16`, as text, since the second process gets it as argument.
RECORDS = {"train_2_processes": "auto", "train_2_processes_float32": "false"}


def run() -> list[dict[str, Any]]:
    """Two processes and one, in turns."""
    return [
        side_by_side(
            name,
            partial(two_processes, bfloat16),
            partial(one_process, bfloat16),
            peer_name="one process of one thread",
            images=STEPS * BATCH,
        )
        for name, bfloat16 in RECORDS.items()
    ]


def one_process(bfloat16: str) -> Callable[[], None]:
    """Some steps in this process."""
    return steps(ALONE, bfloat16)


def two_processes(bfloat16: str) -> Callable[[], None]:
    """The same steps, shared with a second process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
             "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
    command = [sys.executable, "-m", __name__, bfloat16]
    subprocess.Popen(command, env={**os.environ, **place, "RANK": "1"})
    os.environ.update(place, RANK="0")
    group = joined().__enter__()
    step = steps(group, bfloat16)

    def call() -> None:
        group.broadcast("go on")
        step()

    return call


def steps(group: Group, bfloat16: str) -> Callable[[], None]:
    """A function that takes some optimiser steps on its part of a batch."""
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    names = [str(number) for number in range(CATEGORIES)]
    config = TrainingConfig.model_validate(
        {"preset": "nano", "steps": 1, "optimizer": "muon", "dropout": 0.0, "bfloat16": bfloat16}
    )
    unet = build_unet(config.preset, names, SIDE, CHANNELS, config.dropout).train()
    state, scheduler = TrainingState(unet, config, group), DeCoDiffScheduler()
    latents = torch.randn(BATCH, CHANNELS, SIDE, SIDE, generator=generator("benchmark"))
    batch = Batch(latents, torch.arange(BATCH) % CATEGORIES)

    def loss_of(network: nn.Module, part: slice) -> torch.Tensor:
        random = generator(0)
        return deviation_loss(network, scheduler, batch, CorruptionConfig(), random, part)

    def call() -> None:
        for _ in range(STEPS):
            loss = state.add_gradients(loss_of, BATCH, last=True)
            state.apply_gradients(1e-4)
            group.gather(loss.item())

    return call


def main() -> None:
    """The second process: it goes on until the first one is gone."""
    with joined() as group:
        step = steps(group, sys.argv[1])
        with suppress(RuntimeError):  # the connection is closed
            while True:
                group.broadcast()
                step()


if __name__ == "__main__":
    main()
