"""Analyses a folder of images and writes an environment for it."""

from __future__ import annotations

import logging
import os
import shlex
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import BaseModel

from decodiff_pipeline.compute.config import ComputeConfig, use_threads
from decodiff_pipeline.compute.group import ALONE, Group
from decodiff_pipeline.compute.launch import launch
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.layouts.base import GOOD
from decodiff_pipeline.data.manifest import build_manifest
from decodiff_pipeline.deco.autoencoder import load_autoencoder, reduction
from decodiff_pipeline.deco.device import keep_freed_memory
from decodiff_pipeline.deco.unet import build_unet
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.recommend.choices import (
    FEWEST_STEPS,
    Choice,
    Facts,
    choose_geometry,
    choose_preset,
    choose_steps,
    detail_kept,
    flip_ratios,
)
from decodiff_pipeline.recommend.environment import (
    caching_file,
    data_file,
    dataset_file,
    training_file,
    write_files,
)
from decodiff_pipeline.recommend.layout import find_layout, missing
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.visibility.fidelity import busy_seconds
from decodiff_pipeline.visibility.measure import mask_sizes
from decodiff_pipeline.visibility.report import check_visibility

if TYPE_CHECKING:
    import pandas as pd

    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.deco.weights import AutoencoderConfig
    from decodiff_pipeline.recommend.config import BaseParameters, Target

logger = logging.getLogger(__name__)

SAMPLED = 64  # good images per category for orientation and detail
CATEGORIES = 8  # largest number of categories whose visibility is measured
CHECKED = {"images": 4, "sizes": (0.25, 0.5, 1.0, 2.0), "pictures": 0}
STEPS = 4  # timed steps; the first is a warm-up
CELL = 8  # pixels of the model's input; does not affect the masks' sizes in image pixels


def recommend(target: Target, base: BaseParameters, minutes: float) -> list[str]:
    """Write an environment for a folder of images; returns the commands to run next.

    Args:
        minutes: Intended training time on this machine.

    Raises:
        ConfigurationError: The environment cannot be written, or the autoencoder is missing.
        DataError: The images have no known layout, or there is no good one.
    """
    layout, fits = find_layout(target.root)
    logger.info("layout %s: %s", layout.layout, layout.why)
    others = [f"{fit.layout} matches {fit.known}" for fit in fits if fit is not layout]
    logger.info("the other layouts: %s", ", ".join(others))
    values = {"layout": layout.layout, "categories": None, "exclude": (), "split_version": 2}
    data = base.data.model_copy(update=values)
    images = ImageFolder(target.root)
    manifest = build_manifest(images, data)
    images = images.of(manifest)
    for sentence in missing(manifest, base.least, base.false_positive_rate):
        logger.warning("missing: %s", sentence)
    facts = measure_images(manifest, images, base)
    geometry, reasons = choose_geometry(facts, base.geometry)
    preset = choose_preset()
    training = base.training.model_copy(update={"preset": preset.value})
    seconds = seconds_per_step(training, geometry.image_size, base.autoencoder, base.compute)
    autoencoder = _autoencoder(manifest, images, geometry, base, preset.value)
    steps = choose_steps(minutes, seconds)
    files = {
        "globals.yml": dataset_file(target.dataset),
        "parameters_data.yml": data_file(data, layout.why),
        "parameters_caching.yml": caching_file(base, facts, geometry, reasons, autoencoder),
        "parameters_training.yml": training_file(base, geometry, preset, steps),
    }
    write_files(target.folder, files)
    for name in files:
        logger.info("written: conf/%s/%s", target.name, name)
    return _next_commands(target)


def measure_images(manifest: pd.DataFrame, images: ImageFolder, base: BaseParameters) -> Facts:
    """Measure sizes, detail and orientation of the good images, and sizes of the masks.

    Raises:
        DataError: There is no good image that can be read.
    """
    readable = manifest[manifest["error"] == ""]
    good = readable[readable["label"] == GOOD]
    if good.empty:
        raise DataError(f"{images.path} has no readable good image: add some")
    flips, detail, sides = [], [], []
    for _, rows in readable.groupby("category", sort=True):
        unique = rows[rows["label"] == GOOD].sort_values("sha256").drop_duplicates("sha256")
        sample = [images.read(path) for path in unique["path"].head(SAMPLED)]
        flips.append(flip_ratios(sample))
        detail += [detail_kept(image) for image in sample]
        masked = rows[rows["mask_error"] == ""]
        sizes = mask_sizes(masked, images, base.geometry, CELL, base.visibility.masks)
        sides += [sizes["side"]["q10"]] if sizes else []
    return Facts(
        sizes=list(zip(good["width"], good["height"], strict=True)),
        train=int((good["split"] == "train").sum()),
        mask_side=min(sides, default=None),
        detail=float(np.median(detail)),
        flips=flips,
    )


def _autoencoder(
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    base: BaseParameters,
    preset: str,
) -> Choice:
    """The configured autoencoder, with its measured quality as the reason."""
    names = sorted(manifest["category"].unique())[:CATEGORIES]
    rows = manifest[manifest["category"].isin(names) & (manifest["error"] == "")]
    # The data validation reports unreadable masks.
    rows = rows.assign(mask_path=rows["mask_path"].where(rows["mask_error"] == "", None))
    config = base.visibility.model_copy(update=CHECKED)
    report, measured = check_visibility(
        rows, images, geometry=geometry, autoencoder=load_autoencoder(base.autoencoder),
        name=base.autoencoder.source, config=config,
        preset=preset, reverse_steps=base.scoring.num_inference_steps,
    )  # fmt: skip
    for sentence in report["answers"]:
        logger.info("%s", sentence)
    for sentence in report["warnings"]:
        logger.warning("%s", sentence)
    figures = [values.figures for values in measured.values()]
    psnr = [values["psnr"] for values in figures if values.get("psnr") is not None]
    if not psnr:
        return Choice(base.autoencoder, "not measured, because there are no good val images")
    kept = [v["saturation_kept"] for v in figures if v.get("saturation_kept") is not None]
    colour = f"keeps {100 * min(kept):.0f} % of the saturation" if kept else "images are grey"
    reason = f"PSNR {min(psnr):.1f} dB, {colour}"
    if report["warnings"]:
        reason += "; see the warnings: fit one to these images (docs/autoencoder.md)"
    return Choice(base.autoencoder, reason)


class _Job(BaseModel):
    training: TrainingConfig
    channels: int
    side: int


def seconds_per_step(
    training: TrainingConfig,
    image_size: int,
    autoencoder: AutoencoderConfig,
    compute: ComputeConfig,
) -> float:
    """Median time of an optimiser step on random latents, with the processes of a training.

    Raises:
        ConfigurationError: The autoencoder's weights are missing.
    """
    from decodiff_pipeline.training.run import training_workers

    model = load_autoencoder(autoencoder)
    side = image_size // reduction(model)
    job = _Job(training=training, channels=model.config.latent_channels, side=side)
    size = training.batch_size
    workers = training_workers(training, compute, images=size, steps=FEWEST_STEPS)
    if workers.processes > 1:
        return max(launch(f"{__name__}:time_steps", job, workers))
    with use_threads(training.threads or workers.threads):
        return time_steps(job.model_dump_json(), ALONE)


def time_steps(content: str, group: Group) -> float:
    """Median seconds per step of this process, without the first step."""
    from decodiff_pipeline.training.state import TrainingState

    job = _Job.model_validate_json(content)
    training, size = job.training, job.training.batch_size
    keep_freed_memory()
    unet = build_unet(training.preset, ["any"], job.side, job.channels, training.dropout).train()
    state = TrainingState(unet, training, group)
    latents = torch.randn(size, job.channels, job.side, job.side, device=state.device)
    numbers = torch.zeros(size, dtype=torch.long, device=state.device)

    def loss_of(network: torch.nn.Module, part: slice) -> torch.Tensor:
        return network(latents[part], numbers[part], numbers[part]).float().square().mean()

    def step() -> None:
        state.add_gradients(loss_of, size, last=True)
        state.apply_gradients(training.learning_rate)

    return median([busy_seconds(step) for _ in range(STEPS)][1:])


def _next_commands(target: Target) -> list[str]:
    run = f"kedro run --env {target.name}"
    if target.acquired:
        return [run]
    source = shlex.quote(os.path.relpath(target.root, Path.cwd()))
    acquire = f"python -m decodiff_pipeline.data.acquire folder {source} {target.dataset}"
    return [acquire, run]
