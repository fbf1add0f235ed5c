"""A training killed at random moments and resumed, against the same training left alone.

``python -m benchmarks.kill_and_resume --kills 50 --seed 0`` trains a very small network once
without interruption, and then again and again in processes that are killed (SIGKILL) at uniformly
random moments, until so many kills have hit a training after it began. Some come within a step of
the resumption, some wait, from their random moment on, for the next file that is being written. It
prints one JSON line and returns 1 unless every training that was put together from pieces has the
same SHA-256 over weights, moving average and optimiser, and the same logged losses, as the one
left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from decodiff_pipeline.data.latent_cache import LatentCache, LatentMoments
from decodiff_pipeline.deco.unet import DeCoDiffUNet
from decodiff_pipeline.training.batches import Batch, LatentBatches
from decodiff_pipeline.training.checkpoints import CheckpointStore
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.loop import TrainingRun
from decodiff_pipeline.training.validation import Validation

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

IMAGES, VIEWS, SIDE, HELD_OUT = 13, 2, 8, 5
# Of the length of the training left alone: how long a piece may live at most. A training is then
# killed several times, now and then before it has got as far as the one before.
LONGEST_LIFE = 1 / 3
SHORT = 0.2  # of the pieces live for one step at most, so that kills follow each other closely
AIMED = 0.5  # of the kills wait for a save: it takes a small part of the time
CONFIG = TrainingConfig(
    preset="nano",
    steps=1,  # --steps
    batch_size=5,  # of 13 images: the last batch of an epoch has 3
    accumulation=2,  # of 3 batches an epoch: a step reaches over its end
    learning_rate=1e-3,
    ema_decay=0.9,
    dropout=0.2,
    bfloat16=False,
    validate_every=3,
    weights="best",
    log_every=2,
    checkpoint_every=1,
    threads=1,
    progress_bar=False,
)
FORKS = multiprocessing.get_context("forkserver")  # torch is imported once, not for every kill


class Outcome(NamedTuple):
    """What two trainings are compared by.

    Attributes:
        sha256: Over names and bytes of all tensors of the last checkpoint.
        losses: The log without the speed.
    """

    sha256: str
    losses: list[dict[str, float]]


class Kills(NamedTuple):
    """Where the kills of a training hit.

    Attributes:
        all: All of them, each after the training began.
        saving: Those that left a half-written file.
        unsaved: Those before the first checkpoint, whose training began anew.
        in_a_row: Those that hit before a new checkpoint since the kill before.
    """

    all: int = 0
    saving: int = 0
    unsaved: int = 0
    in_a_row: int = 0

    def plus(self, other: Kills) -> Kills:
        """The sums of both."""
        return Kills(*(a + b for a, b in zip(self, other, strict=True)))


def fill(folder: Path) -> None:
    """Make a cache of random latents with a posterior."""
    generator = torch.Generator().manual_seed(0)
    count = IMAGES * VIEWS + HELD_OUT
    mean, std = torch.randn(2, count, 4, SIDE, SIDE, generator=generator)
    moments = LatentMoments(mean, 0.1 * std.abs())
    LatentCache(folder).append([str(number) for number in range(count)], moments, "float32")


def train(cache: Path, checkpoints: Path, steps: int, started: Connection) -> None:
    """Train to the end, from wherever the checkpoints stand.

    Args:
        cache: As :func:`fill` made it.
        checkpoints: Where the training keeps its state.
        steps: Length of the whole training.
        started: Told when the training begins.
    """
    config = CONFIG.model_copy(update={"steps": steps})
    reader = LatentCache(cache).reader([str(i) for i in range(IMAGES * VIEWS + HELD_OUT)])
    held_out = reader.moments(range(IMAGES * VIEWS, len(reader))).mean
    torch.manual_seed(config.seed)
    unet = DeCoDiffUNet(["a", "b"], SIDE, base_channels=8, num_heads=1, context_dim=8,
                        norm_groups=4, dropout=config.dropout)  # fmt: skip
    run = TrainingRun(
        unet=unet,
        batches=LatentBatches(
            reader,
            [number % 2 for number in range(IMAGES)],
            views=VIEWS,
            batch_size=config.batch_size,
            seed=config.seed,
        ),
        validation=Validation([Batch(held_out, torch.arange(HELD_OUT) % 2)], config.corruption),
        config=config,
        store=CheckpointStore(checkpoints),
        identity=config.identity(),
    )
    started.send(True)
    run.run()


def outcome(checkpoints: Path) -> Outcome:
    """Digest and losses of a finished training."""
    checkpoint = CheckpointStore(checkpoints).latest()
    if checkpoint is None or not checkpoint.finished:
        msg = f"the training in {checkpoints} ended without a last checkpoint"
        raise RuntimeError(msg)
    total = hashlib.sha256()
    for name, tensor in sorted(checkpoint.tensors.items()):
        total.update(name.encode() + tensor.numpy().tobytes())
    file = [json.loads(line) for line in (checkpoints / "log.jsonl").read_text().splitlines()]
    losses = [
        [{key: row[key] for key in sorted(row) if key != "images_per_second"} for row in rows]
        for rows in (checkpoint.log, file)
    ]
    if losses[0] != losses[1]:
        msg = f"{checkpoints}/log.jsonl does not hold the rows of the last checkpoint"
        raise RuntimeError(msg)
    return Outcome(total.hexdigest(), losses[0])


def half_written(checkpoints: Path) -> bool:
    """Whether a file is being written there, or was when its writer was killed."""
    return any(checkpoints.glob(".*.tmp"))


def begin(cache: Path, checkpoints: Path, steps: int) -> BaseProcess:
    """Start a process that trains, and wait for its training to begin."""
    receiving, sending = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=train, args=(cache, checkpoints, steps, sending))
    process.start()
    sending.close()
    receiving.recv()
    return process


def train_under_fire(
    cache: Path, checkpoints: Path, steps: int, seconds: float, draw: random.Random
) -> Kills:
    """Train to the end in pieces, each killed at a random moment unless it finishes before.

    Args:
        cache: As :func:`fill` made it.
        checkpoints: Where the training keeps its state.
        steps: Length of the whole training.
        seconds: What the training takes when it is left alone.
        draw: Source of the times.
    """
    store = CheckpointStore(checkpoints)
    kills, saved = Kills(), -1
    while True:
        process = begin(cache, checkpoints, steps)
        short = draw.random() < SHORT
        process.join(draw.uniform(0, seconds / steps if short else seconds * LONGEST_LIFE))
        if not short and draw.random() < AIMED:
            while process.is_alive() and not half_written(checkpoints):
                time.sleep(1e-4)
        if process.is_alive():
            process.kill()
        process.join()
        if process.exitcode == 0:
            return kills
        if process.exitcode != -9:
            msg = f"a training ended with exit code {process.exitcode}; see its traceback above"
            raise RuntimeError(msg)
        now = max(store.steps(), default=0)
        kills = kills.plus(Kills(1, half_written(checkpoints), now == 0, now == saved))
        saved = now


def compare(folder: Path, kills: int, steps: int, seed: int) -> dict[str, Any]:
    """Kill at least so many times, and compare every training with the one left alone.

    Args:
        folder: A folder to work in.
        kills: How many kills at least.
        steps: Length of each training.
        seed: Source of the moments.

    Returns:
        The record that is printed.
    """
    draw = random.Random(seed)  # noqa: S311 (no secret)
    cache = folder / "cache"
    fill(cache)
    process = begin(cache, folder / "whole", steps)
    began = time.perf_counter()
    process.join()
    seconds = time.perf_counter() - began
    whole = outcome(folder / "whole")
    done, equal_digests, equal_losses, trainings = Kills(), True, True, 0
    while done.all < kills:
        checkpoints = folder / f"broken-{trainings}"
        done = done.plus(train_under_fire(cache, checkpoints, steps, seconds, draw))
        broken = outcome(checkpoints)
        equal_digests &= broken.sha256 == whole.sha256
        equal_losses &= broken.losses == whole.losses
        trainings += 1
    return {
        "kills": done.all,
        "resumes": done.all - done.unsaved,
        "kills_during_save": done.saving,
        "kills_before_first_checkpoint": done.unsaved,
        "kills_without_a_step_between": done.in_a_row,
        "trainings": trainings,
        "steps": steps,
        "sha256": whole.sha256,
        "sha256_equal": equal_digests,
        "losses_equal": equal_losses,
    }


def main() -> int:
    """Print one JSON line; 0 where everything is equal."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.kill_and_resume")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    FORKS.set_forkserver_preload(["decodiff_pipeline.training.setup"])
    with tempfile.TemporaryDirectory() as folder:
        record = compare(Path(folder), options.kills, options.steps, options.seed)
    print(json.dumps(record))
    return 0 if record["sha256_equal"] and record["losses_equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
