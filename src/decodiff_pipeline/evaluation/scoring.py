"""Runs a trained pipeline over the images of a manifest."""

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
from decodiff_pipeline.deco.regions import read_regions
from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.evaluation.predict import ModelInput, model_input, predict, progress
from decodiff_pipeline.evaluation.predictions import INDEX, Found, PredictionStore, write_part
from decodiff_pipeline.evaluation.protocols import labelled_inside

if TYPE_CHECKING:
    from collections.abc import Generator

    from decodiff_pipeline.evaluation.predict import AnomalyModel, Prediction

PART_IMAGES = 1024
# A larger network uses all cores by itself, and would lie in memory several times.
SMALL = 50_000_000
SCORED_SPLITS = ("calibration", "test")


def score_images(
    model: AnomalyModel,
    manifest: pd.DataFrame,
    images: ImageFolder,
    store: PredictionStore,
    config: EvaluationConfig,
    compute: ComputeConfig = ONE_PROCESS,
) -> None:
    """Score the calibration and test images, uncertain ones too, in constant memory.

    The store is replaced as a whole once everything is scored. A run that was killed goes on at
    the parts that it was writing. Labels are those of the model's regions, see `labelled_inside`.

    Raises:
        ModelError: The model does not know a category, or gives a map or score that is no number.
        ImageError: An image cannot be read.
        DataError: The predictions cannot be written, or another run is scoring into the store.
        ComputeError: A process was killed.
    """
    wanted = manifest[manifest["split"].isin(SCORED_SPLITS)]
    wanted = labelled_inside(wanted, images, read_regions(getattr(model, "config", {})))
    unknown = sorted(set(wanted["category"]) - set(model.categories))
    if unknown:
        raise ModelError(
            f"the model was not trained on the category {unknown[0]!r} of the manifest (it knows "
            f"{', '.join(model.categories)}); run {kedro_run('train')} first"
        )
    ordered = wanted.sort_values("category", kind="stable")
    group = current_group() or ALONE
    with store.locked() if group.first else nullcontext():
        parts = score_parts(model, ordered, images, store, config, compute, name="scoring")
        if group.first:
            store.replace(describe(model, wanted, config), parts, ordered.index)
    group.barrier()


class _Task(BaseModel):
    """What is made of the images.

    Attributes:
        store: Of predictions, in whose work folder the parts lie.
        key: What tells the parts of this model and configuration from others.
        arrays: Whether maps and reconstructions are kept, or scores alone.
        name: Of the progress bar.
    """

    store: Path
    key: str
    config: EvaluationConfig
    arrays: bool
    name: str


class _Job(BaseModel):
    """What the processes that score are told."""

    model: Path
    kind: str  # module:class of the model
    rows: Path
    images: Path
    bits: dict[str, int]
    max_pixels: int
    task: _Task


def score_parts(
    model: AnomalyModel,
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
        rows: Manifest rows of categories that the model knows, categories together.
        store: In whose work folder the parts are kept; those of a killed run are used again.
        arrays: Whether maps and reconstructions are kept, or scores alone.

    Returns:
        Folders, as `predictions.write_part` fills them, of the images in their order.
    """
    key = _key(model, rows, config)
    task = _Task(store=store.path, key=key, config=config, arrays=arrays, name=name)
    group = current_group() or ALONE
    network = getattr(model, "unet", None)
    size = 0 if network is None else sum(each.numel() for each in network.parameters())
    workers = plan_images(compute, len(rows), small=size < SMALL)
    if group.size > 1 or workers.processes == 1 or network is None:
        with use_threads(workers.threads):
            found = group.gather(_score(model, rows, images, task, group))
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
            model.save_pretrained(job.model)  # type: ignore[attr-defined]
            rows.to_parquet(job.rows)
            found = launch(f"{__name__}:score_rank", job, workers)
    return [store.work_folder / part for parts in found for part in parts]


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
    model: AnomalyModel, rows: pd.DataFrame, images: ImageFolder, task: _Task, group: Group
) -> list[str]:
    """Score this process's part of the images; returns the names of its folders."""
    store = PredictionStore(task.store)
    parts = [
        (rows.iloc[own], f"{number:05d}-{_digest(rows.iloc[own], task)}")
        for number, own in group.shards(len(rows), task.config.batch_size, PART_IMAGES)
    ]
    missing = [(own, name) for own, name in parts if not (store.work_folder / name).is_dir()]
    bar = f"{task.name}, process 0 of {group.size}" if group.size > 1 else task.name
    if missing:
        wanted = pd.concat([own for own, _ in missing])
        with closing(predictions_of(model, wanted, images, task.config, bar)) as found:
            for own, name in missing:
                with store.reporting(), replacing_folder(store.work_folder / name) as folder:
                    if task.arrays:
                        write_part(folder, own, map(_arrays, found))
                    else:
                        scores = [one.score for one in islice(found, len(own))]
                        own.assign(score=np.array(scores, np.float32)).to_parquet(folder / INDEX)
    return [name for _, name in parts]


def _arrays(found: Prediction) -> Found:
    return found.anomaly_map, found.score, found.reconstruction


def _key(model: AnomalyModel, rows: pd.DataFrame, config: EvaluationConfig) -> str:
    """Tells what a model makes of images from what another makes of them, or of others."""
    modules = {name: getattr(model, name, None) for name in ("vae", "reference")}
    digests = {name: network_sha256(module) for name, module in modules.items() if module}
    return sha256_of([describe(model, rows, config), digests])


def _digest(rows: pd.DataFrame, task: _Task) -> str:
    about = [task.key, task.arrays, task.config.batch_size, rows["path"].tolist()]
    return sha256_of(about)[:16]


def predictions_of(
    model: AnomalyModel,
    rows: pd.DataFrame,
    images: ImageFolder,
    config: EvaluationConfig,
    name: str,
) -> Generator[Prediction, None, None]:
    """The predictions of a manifest's rows, in their order.

    Args:
        rows: All of categories that the model knows.

    Raises:
        ModelError: The model gives a map or score that is no number.
        ImageError: An image cannot be read.
    """
    geometry = model.preprocessing

    def read(row: Any) -> ModelInput:
        return model_input(images.read(row.path), row.path, row.category, geometry)

    size, steps = config.batch_size, config.num_inference_steps
    with progress(len(rows), name) as bar, closing(read_ahead(read, rows.itertuples())) as inputs:
        for batch in predict(model, inputs, bar, batch_size=size, steps=steps):
            yield from batch


def describe(
    model: AnomalyModel, manifest: pd.DataFrame, config: EvaluationConfig
) -> dict[str, Any]:
    """Facts that identify the model and the images, JSON-ready.

    Args:
        manifest: The rows that are scored.
        config: The number of reverse steps, where it is not the model's own.
    """
    saved = dict(getattr(model, "config", {}))
    about = {
        "preprocessing": model.preprocessing.facts(),
        "model": type(model).__name__,
        "num_inference_steps": config.num_inference_steps or saved.get("num_inference_steps"),
        "discrepancy": saved.get("discrepancy"),
        "images_sha256": _images_digest(manifest),
    }
    if saved.get("regions"):
        about["regions"] = saved["regions"]
    network = getattr(model, "unet", None)
    if network is not None:
        about["parameters"] = sum(weights.numel() for weights in network.parameters())
        about["network_sha256"] = network_sha256(network)
    return about


def _images_digest(manifest: pd.DataFrame) -> str:
    pixels = zip(manifest["path"], pixel_identities(manifest), strict=True)
    lines = sorted(f"{path}\t{identity}" for path, identity in pixels)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
