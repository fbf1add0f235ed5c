"""Runs a training in this process, or in several."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import BaseModel

from decodiff_pipeline.compute.config import ComputeConfig, Workers, plan
from decodiff_pipeline.compute.group import ALONE, Group, current_group
from decodiff_pipeline.compute.launch import launch
from decodiff_pipeline.data.caching import LatentCacheConfig
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.latent_cache import LatentCache
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.regions import Region
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.training.champion import Champion
from decodiff_pipeline.training.checkpoints import CheckpointStore
from decodiff_pipeline.training.config import CHAMPION, TrainingConfig
from decodiff_pipeline.training.identity import differences, warn_of_interruption
from decodiff_pipeline.training.setup import set_up_training

if TYPE_CHECKING:
    from decodiff_pipeline.training.champion import Champions
    from decodiff_pipeline.training.loop import TrainingRun

logger = logging.getLogger(__name__)

# Presets that use one CPU core well; larger networks use all cores in one process.
SMALL = ("nano", "XS")
# Images to train on from which on several processes save more time than they take to start.
WORTHWHILE_IMAGES = 4096


class Job(BaseModel):
    """The input of the processes of a training."""

    manifest: Path
    images: Path
    cache: Path
    store: Path
    geometry: PreprocessConfig
    autoencoder: AutoencoderConfig
    latents: LatentCacheConfig
    config: TrainingConfig
    model: str
    champion: Champion | None = None
    regions: dict[str, Region] = {}


class _FetchedChampion:
    """The champion, looked up once by the parent process."""

    def __init__(self, model: str, champion: Champion | None) -> None:
        self.model, self._champion = model, champion

    def fetch(self) -> Champion | None:
        return self._champion


def train(
    manifest: pd.DataFrame,
    cache: LatentCache,
    store: CheckpointStore,
    *,
    images: ImageFolder,
    geometry: PreprocessConfig,
    autoencoder: AutoencoderConfig,
    latents: LatentCacheConfig,
    config: TrainingConfig,
    champions: Champions | None,
    compute: ComputeConfig,
    regions: dict[str, Region] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train a network on latents, in as many processes as ``compute`` says.

    Returns:
        The training log; and its ``last`` row, the network's ``parameters``, ``images``, ``start``.

    Raises:
        DecodiffError: See `set_up_training` and `TrainingRun.run`; or a process has failed.
    """
    job = Job(
        manifest=Path(),
        images=images.path,
        cache=cache.path,
        store=store.path,
        geometry=geometry,
        autoencoder=autoencoder,
        latents=latents,
        config=config,
        model="" if champions is None else champions.model,
        regions=regions or {},
    )
    run = _set_up(job, manifest, champions, current_group() or ALONE)
    count = len(run.batches.category_ids)
    summary = {
        "parameters": sum(parameter.numel() for parameter in run.unet.parameters()),
        "images": count,
        "start": run.start,
    }
    if current_group() is not None:
        run.run()
    else:
        workers = training_workers(config, compute, images=count, steps=run.total)
        if workers.processes == 1 or _is_finished(run):
            run.run(workers.threads)
        else:
            del run  # frees the memory of its network
            if config.init_from == CHAMPION and champions is not None:
                job = job.model_copy(update={"champion": champions.fetch()})
            _train_in_processes(job, manifest, workers)
    done = store.latest(tensors=False)
    assert done is not None  # noqa: S101
    return done.log, {"last": done.log[-1], **summary}


def _train_in_processes(job: Job, manifest: pd.DataFrame, workers: Workers) -> None:
    logger.info("training in %d processes of %d threads", workers.processes, workers.threads)
    with tempfile.TemporaryDirectory(prefix="decodiff-") as folder:
        file = Path(folder) / "manifest.parquet"
        manifest.to_parquet(file)
        try:
            launch(f"{__name__}:train_rank", job.model_copy(update={"manifest": file}), workers)
        except (KeyboardInterrupt, SystemExit):
            warn_of_interruption(max(CheckpointStore(job.store).steps(), default=0), job.config)
            raise


def train_rank(content: str, group: Group) -> None:
    """Train as one of several processes."""
    job = Job.model_validate_json(content)
    # The parent process has already logged the initial weights.
    logging.getLogger("decodiff_pipeline.training.initial_weights").setLevel(logging.ERROR)
    manifest = pd.read_parquet(job.manifest)
    _set_up(job, manifest, _FetchedChampion(job.model, job.champion), group).run()


def _set_up(
    job: Job, manifest: pd.DataFrame, champions: Champions | None, group: Group
) -> TrainingRun:
    return set_up_training(
        manifest,
        LatentCache(job.cache),
        CheckpointStore(job.store),
        images=ImageFolder(job.images).of(manifest),
        geometry=job.geometry,
        autoencoder=job.autoencoder,
        latents=job.latents,
        config=job.config,
        champions=champions,
        group=group,
        regions=job.regions,
    )


def training_workers(
    config: TrainingConfig, compute: ComputeConfig, *, images: int, steps: int
) -> Workers:
    """Plan the processes of a training, at most one for each image of a batch.

    Args:
        images: Number of training images.
        steps: Number of optimiser steps; 0 if it is not known yet.
    """
    small, total = config.preset in SMALL, steps * config.accumulation * config.batch_size
    long = total >= WORTHWHILE_IMAGES or config.max_minutes is not None
    most = min(config.batch_size, images)
    workers = plan(compute, most=most, worth=small and long, what="images in a batch")
    if small and workers.threads is None and workers.device == "cpu":
        return workers._replace(threads=1)  # a second thread makes it slower
    return workers


def _is_finished(run: TrainingRun) -> bool:
    done = None if run.config.resume == "never" else run.store.latest(tensors=False)
    return done is not None and done.finished and not differences(done.identity, run.identity)
