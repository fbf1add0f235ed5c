"""The complete model: autoencoder and network, with scoring in units fitted on val images."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from decodiff_pipeline.deco.config import DiscrepancyConfig
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.autoencoder import Autoencoder
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.deco.reference import DiscrepancyReference
    from decodiff_pipeline.deco.unet import DeCoDiffUNet

logger = logging.getLogger(__name__)


class ScoringConfig(BaseModel):
    """How maps and scores are made from discrepancies.

    Attributes:
        num_inference_steps: Reverse steps.
        limits: ``fitted`` sets the clip limits from good val images, in whatever units the
            autoencoder has; ``given`` takes those of ``discrepancy`` (by default the paper's,
            which fit Stable Diffusion's autoencoder).
        limit_quantile: Quantile of the val images' discrepancies that a fitted limit is a
            multiple of.
        limit_factor: That multiple.
        discrepancy: Smoothing, fusion and image score; limits where they are given.
        batch_size: Val images scored at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_inference_steps: Literal[2, 3, 4, 5, 10] = 5
    limits: Literal["fitted", "given"] = "fitted"
    limit_quantile: float = Field(default=0.99, gt=0, le=1)
    limit_factor: float = Field(default=3.0, gt=0)
    discrepancy: DiscrepancyConfig = DiscrepancyConfig()
    batch_size: int = Field(default=32, ge=1)


def build_model(
    autoencoder: Autoencoder,
    unet: DeCoDiffUNet,
    *,
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    config: ScoringConfig,
) -> DeCoDiffPipeline:
    """Put the parts together and, if asked to, fit limits and reference.

    Args:
        autoencoder: The one that made the latents.
        unet: The trained network.
        manifest: The validated manifest; only good images of its val split are looked at.
        images: The raw images.
        geometry: Resize and crop.
        config: How to score.

    Raises:
        DataError: Something is to be fitted, but there is no good val image.
    """
    import torch

    from decodiff_pipeline.deco.autoencoder import reduction
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.deco.reference import DiscrepancyReference
    from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler

    autoencoder.to(device := "cuda" if torch.cuda.is_available() else "cpu")
    unet.to(device)
    by_position = config.discrepancy.normalisation == "position"
    latent_size = geometry.image_size // reduction(autoencoder)
    reference = DiscrepancyReference(len(unet.categories), geometry.image_size, latent_size)
    model = DeCoDiffPipeline(
        autoencoder,
        unet,
        DeCoDiffScheduler(),
        reference if by_position else None,
        preprocess=asdict(geometry),
        discrepancy=asdict(config.discrepancy),
        num_inference_steps=config.num_inference_steps,
    )
    if by_position or config.limits == "fitted":
        _fit(model, reference, manifest, images, config)
    return model


def _fit(
    model: DeCoDiffPipeline,
    reference: DiscrepancyReference,
    manifest: pd.DataFrame,
    images: ImageFolder,
    config: ScoringConfig,
) -> None:
    """Fit the reference and the clip limits, as far as the model uses them, on good val images."""
    ids, pixel, latent = _val_discrepancies(model, manifest, images, config)
    if config.discrepancy.normalisation == "position":
        for number, category in enumerate(model.categories):
            own = ids == number
            if not own.any():
                logger.warning("no val image of %s: all categories' statistics serve it", category)
                own[:] = True
            reference.fit(number, pixel[own], latent[own])
        pixel, latent = reference.normalise(ids.tolist(), pixel, latent)
    if config.limits == "fitted":
        fitted = {"pixel_limit": _limit(pixel, config), "latent_limit": _limit(latent, config)}
        logger.info("clip limits fitted on val images: %s", fitted)
        model.register_to_config(discrepancy={**asdict(config.discrepancy), **fitted})


def _limit(values: np.ndarray, config: ScoringConfig) -> float:
    return float(config.limit_factor * np.quantile(values, config.limit_quantile))


def _val_discrepancies(
    model: DeCoDiffPipeline, manifest: pd.DataFrame, images: ImageFolder, config: ScoringConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    import torch
    from tqdm import tqdm

    rows = manifest[(manifest["split"] == "val") & (manifest["label"] == "good")]
    rows = rows[rows["category"].isin(model.categories)]
    if rows.empty:
        msg = (
            "there are no good val images to fit the scoring on; raise data.val_fraction, or set "
            "scoring.limits to given and scoring.discrepancy.normalisation to none"
        )
        raise DataError(msg)
    numbers = {category: number for number, category in enumerate(model.categories)}
    ids = rows["category"].map(numbers).to_numpy(copy=True)
    pixel, latent = [], []
    starts = range(0, len(rows), config.batch_size)
    for start in tqdm(starts, desc="fitting limits", unit="batches"):
        batch = rows.iloc[start : start + config.batch_size]
        tensor = model.preprocess([images.read(path) for path in batch["path"]])
        chosen = torch.from_numpy(ids[start : start + config.batch_size])
        found = model.discrepancies(tensor, chosen)
        pixel.append(found.pixel)
        latent.append(found.latent)
    return ids, np.concatenate(pixel), np.concatenate(latent)
