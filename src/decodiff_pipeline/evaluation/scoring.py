"""Scores the images of a manifest with a trained model, in one process or several."""

from __future__ import annotations

import hashlib
from contextlib import closing, nullcontext
from importlib import import_module
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.compute.config import (
    ONE_PROCESS,
    ComputeConfig,
    plan_images,
    use_threads,
)
from decodiff_pipeline.compute.group import ALONE, Group, current_group
from decodiff_pipeline.compute.launch import launch
from decodiff_pipeline.data.atomic import replacing_folder
from decodiff_pipeline.data.bit_depth import pixel_identities
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.read_ahead import read_ahead
from decodiff_pipeline.deco.device import resolve_device
from decodiff_pipeline.deco.digests import network_sha256, sha256_of
from decodiff_pipeline.deco.loading import load_pretrained
from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.evaluation.predict import ModelInput, model_input, predict, progress
from decodiff_pipeline.evaluation.predictions import INDEX, Found, PredictionStore, write_part
from decodiff_pipeline.evaluation.protocols import labelled_inside

if TYPE_CHECKING:
    from collections.abc import Generator

    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.evaluation.predict import Prediction

PART_IMAGES = 1024
# Parameters. A larger network uses all cores in one process, and its copies would need memory.
SMALL = 50_000_000
SCORED_SPLITS = ("calibration", "test")


def score_images(
    model: DeCoDiffPipeline,
    manifest: pd.DataFrame,
    images: ImageFolder,
    store: PredictionStore,
    config: EvaluationConfig,
    compute: ComputeConfig = ONE_PROCESS,
) -> None:
    """Score the calibration and test images (uncertain ones as well) in constant memory.

    The store is replaced atomically at the end. A killed run resumes with the parts that are
    missing. Labels follow from the model's regions, see `labelled_inside`.

    Raises:
        ModelError: The model does not know a category.
        DataError: Another run is scoring into the store.
        DecodiffError: As of `score_parts`.
    """
    rows = manifest[manifest["split"].isin(SCORED_SPLITS)]
    rows = labelled_inside(rows, images, model.regions)
    unknown = sorted(set(rows["category"]) - set(model.categories))
    if unknown:
        raise ModelError(
            f"the model was not trained on the category {unknown[0]!r} of the manifest (it knows "
            f"{', '.join(model.categories)}); run {kedro_run('train')} first"
        )
    ordered = rows.sort_values("category", kind="stable")
    group = current_group() or ALONE
    with store.locked() if group.first else nullcontext():
        parts = score_parts(model, ordered, images, store, config, compute, name="scoring")
        if group.first:
            store.replace(describe(model, rows, config), parts, ordered.index)
    group.barrier()


class _Task(BaseModel):
    """Options of a scoring run.

    Attributes:
        store: Prediction store, whose work folder holds the parts.
        key: Digest of model and configuration.
        arrays: Whether to keep maps and reconstructions, or only scores.
        name: Name of the progress bar.
    """

    store: Path
    key: str
    config: EvaluationConfig
    arrays: bool
    name: str


class _Job(BaseModel):
    model: Path
    kind: str  # module:class of the model
    rows: Path
    images: Path
    bits: dict[str, int]
    max_pixels: int
    task: _Task


def score_parts(
    model: DeCoDiffPipeline,
    rows: pd.DataFrame,
    images: ImageFolder,
    store: PredictionStore,
    config: EvaluationConfig,
    compute: ComputeConfig,
    *,
    name: str,
    arrays: bool = True,
) -> list[Path]:
    """Score images, in as many processes as ``compute`` says.

    Args:
        rows: Manifest rows of categories that the model knows, grouped by category.
        store: Its work folder holds the parts; those of a killed run are reused.
        arrays: Whether to keep maps and reconstructions, or only scores.

    Returns:
        Folders as `predictions.write_part` writes them, in the order of the images.

    Raises:
        ModelError: The model returns a map or score that is not finite.
        ImageError: An image cannot be read.
        DataError: The predictions cannot be written.
        ComputeError: A process was killed.
    """
    key = _key(model, rows, config)
    task = _Task(store=store.path, key=key, config=config, arrays=arrays, name=name)
    group = current_group() or ALONE
    size = sum(weight.numel() for weight in model.unet.parameters())
    workers = plan_images(compute, len(rows), small=size < SMALL)
    if group.size > 1 or workers.processes == 1:
        with use_threads(workers.threads):
            names = group.gather(_score(model, rows, images, task, group))
    else:
        with TemporaryDirectory(prefix="decodiff-") as folder:
            job = _Job(
                model=Path(folder) / "model",
                kind=f"{type(model).__module__}:{type(model).__qualname__}",
                rows=Path(folder) / "rows.parquet",
                images=images.path,
                bits=images.bits,
                max_pixels=images.max_pixels,
                task=task,
            )
            model.save_pretrained(job.model)
            rows.to_parquet(job.rows)
            names = launch(f"{__name__}:score_rank", job, workers)
    return [store.work_folder / part for parts in names for part in parts]


def score_rank(content: str, group: Group) -> list[str]:
    """Score as one of several processes."""
    from diffusers.utils.logging import disable_progress_bar

    job = _Job.model_validate_json(content)
    module, name = job.kind.split(":")
    disable_progress_bar()
    model = load_pretrained(getattr(import_module(module), name), job.model).to(resolve_device())
    images = ImageFolder(job.images, job.bits, job.max_pixels)
    return _score(model, pd.read_parquet(job.rows), images, job.task, group)


def _score(
    model: DeCoDiffPipeline, rows: pd.DataFrame, images: ImageFolder, task: _Task, group: Group
) -> list[str]:
    """Score this process's part of the images; returns the names of its folders."""
    store = PredictionStore(task.store)
    parts = [
        (rows.iloc[shard], f"{number:05d}-{_digest(rows.iloc[shard], task)}")
        for number, shard in group.shards(len(rows), task.config.batch_size, PART_IMAGES)
    ]
    missing = [(part, name) for part, name in parts if not (store.work_folder / name).is_dir()]
    bar = f"{task.name}, process 0 of {group.size}" if group.size > 1 else task.name
    if missing:
        remaining = pd.concat([part for part, _ in missing])
        with closing(_predictions(model, remaining, images, task.config, bar)) as predictions:
            for part, name in missing:
                with store.reporting(), replacing_folder(store.work_folder / name) as folder:
                    if task.arrays:
                        write_part(folder, part, map(_arrays, predictions))
                    else:
                        scores = [one.score for one in islice(predictions, len(part))]
                        part.assign(score=np.array(scores, np.float32)).to_parquet(folder / INDEX)
    return [name for _, name in parts]


def _arrays(prediction: Prediction) -> Found:
    return prediction.anomaly_map, prediction.score, prediction.reconstruction


def _key(model: DeCoDiffPipeline, rows: pd.DataFrame, config: EvaluationConfig) -> str:
    """Digest of everything that determines the predictions."""
    modules = {"vae": model.vae, "reference": model.reference}
    digests = {name: network_sha256(module) for name, module in modules.items() if module}
    return sha256_of([describe(model, rows, config), digests])


def _digest(rows: pd.DataFrame, task: _Task) -> str:
    about = [task.key, task.arrays, task.config.batch_size, rows["path"].tolist()]
    return sha256_of(about)[:16]


def _predictions(
    model: DeCoDiffPipeline,
    rows: pd.DataFrame,
    images: ImageFolder,
    config: EvaluationConfig,
    name: str,
) -> Generator[Prediction, None, None]:
    geometry = model.preprocessing

    def read(row: Any) -> ModelInput:
        return model_input(images.read(row.path), row.path, row.category, geometry)

    size, steps = config.batch_size, config.num_inference_steps
    with progress(len(rows), name) as bar, closing(read_ahead(read, rows.itertuples())) as inputs:
        for batch in predict(model, inputs, bar, batch_size=size, steps=steps):
            yield from batch


def describe(
    model: DeCoDiffPipeline, manifest: pd.DataFrame, config: EvaluationConfig
) -> dict[str, Any]:
    """Facts that identify the model and the images, JSON-ready.

    Args:
        manifest: The rows that are scored.
        config: Its number of reverse steps replaces the model's own.
    """
    about = {
        "preprocessing": model.preprocessing.facts(),
        "model": type(model).__name__,
        "num_inference_steps": config.num_inference_steps
        or model.config.get("num_inference_steps"),
        "discrepancy": model.config.get("discrepancy"),
        "images_sha256": _images_digest(manifest),
        "parameters": sum(weights.numel() for weights in model.unet.parameters()),
        "network_sha256": network_sha256(model.unet),
    }
    regions = model.config.get("regions")
    return about | ({"regions": regions} if regions else {})


def _images_digest(manifest: pd.DataFrame) -> str:
    pixels = zip(manifest["path"], pixel_identities(manifest), strict=True)
    lines = sorted(f"{path}\t{identity}" for path, identity in pixels)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
