"""A small training in one process or several, for `test_processes`; the workers import it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel
from tests.models import wave_latents

from decodiff_pipeline.compute.config import Workers
from decodiff_pipeline.compute.group import ALONE, Group
from decodiff_pipeline.compute.launch import launch
from decodiff_pipeline.data.latent_cache import LatentCache, LatentMoments
from decodiff_pipeline.deco.unet import DeCoDiffUNet
from decodiff_pipeline.training.batches import Batch, LatentBatches
from decodiff_pipeline.training.checkpoints import CheckpointStore
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.loop import TrainingRun
from decodiff_pipeline.training.validation import SyntheticDefects, Validation

if TYPE_CHECKING:
    from decodiff_pipeline.training.checkpoints import Checkpoint

WORK = "tests.training.processes:train_rank"
IMAGES, SIDE, BATCH = 12, 8, 5  # the last batch of an epoch has two images
OPTIONS = {
    "preset": "nano", "batch_size": BATCH, "learning_rate": 1e-3, "dropout": 0.1,
    "ema_decay": 0.9, "bfloat16": False, "steps": 20, "validate_every": 5, "log_every": 1,
    "checkpoint_every": 10, "progress_bar": False,
}  # fmt: skip


class Job(BaseModel):
    """A folder, training parameters, and the step at which rank 1 is killed."""

    folder: Path
    options: dict[str, Any]
    killed_at: int | None = None


def job(folder: Path, options: dict[str, Any], killed_at: int | None = None) -> Job:
    """What the processes are told."""
    return Job(folder=folder, options=OPTIONS | options, killed_at=killed_at)


def train(folder: Path, processes: int, killed_at: int | None = None, **options: Any) -> Checkpoint:
    """Train; returns the last checkpoint."""
    todo = job(folder, options, killed_at)
    if processes == 1:
        train_rank(todo.model_dump_json(), ALONE)
    else:
        launch(WORK, todo, Workers("cpu", processes, 1))
    return CheckpointStore(folder / "checkpoints").latest()


def train_rank(content: str, group: Group) -> None:
    """What each process does."""
    told = Job.model_validate_json(content)
    run = make_run(told.folder, TrainingConfig.model_validate(told.options), group)
    if told.killed_at is not None and group.rank == group.size - 1:
        step = run._train_step

        def dying() -> int:
            if run.step == told.killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return step()

        run._train_step = dying  # type: ignore[method-assign]
    run.run(threads=1)


def make_run(folder: Path, config: TrainingConfig, group: Group) -> TrainingRun:
    """A run on latents of smooth waves; only the first process has the right initial weights."""
    mean = wave_latents(IMAGES, SIDE)
    keys = [str(number) for number in range(IMAGES)]
    cache = LatentCache(folder / "cache")
    if group.first and cache.missing(keys):
        cache.append(keys, LatentMoments(mean, mean[:, :0]), "float32")
    group.barrier()
    torch.manual_seed(config.seed + group.rank)
    unet = DeCoDiffUNet(
        ["a", "b"], SIDE, 4, base_channels=8, num_heads=1, context_dim=8, norm_groups=4,
        dropout=config.dropout,
    )  # fmt: skip
    ids = torch.arange(IMAGES) % 2
    batches = LatentBatches(
        cache.reader(keys), ids.tolist(), views=1, batch_size=BATCH, seed=config.seed
    )
    defect = torch.zeros(4, SIDE, SIDE)
    defect[:, 2:4, 2:4] = 1.0
    synthetic = SyntheticDefects(mean[:4], mean[:4] + 2 * defect[:, None], defect, ids[:4])
    held_out = [Batch(mean[:3], ids[:3]), Batch(mean[3:5], ids[3:5])]
    validation = Validation(held_out, config.corruption, synthetic, batch_size=3)
    store = CheckpointStore(folder / "checkpoints")
    return TrainingRun(
        unet, batches, validation, config, store, config.identity(), {"kind": "scratch"}, group
    )
