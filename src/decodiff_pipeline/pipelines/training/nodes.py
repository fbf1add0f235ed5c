"""Nodes of the training pipeline."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from decodiff_pipeline.compute.config import ComputeConfig
from decodiff_pipeline.data.caching import LatentCacheConfig
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.latent_cache import LatentCache
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.training.champion import Champions
from decodiff_pipeline.training.checkpoints import CheckpointStore
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.scoring import ScoringConfig

logger = logging.getLogger(__name__)


def train_network(
    manifest: pd.DataFrame,
    images: ImageFolder,
    cache: LatentCache,
    store: CheckpointStore,
    geometry: PreprocessConfig,
    autoencoder: AutoencoderConfig,
    latents: LatentCacheConfig,
    config: TrainingConfig,
    scoring: ScoringConfig,
    champions: Champions,
    compute: ComputeConfig,
) -> tuple[CheckpointStore, list[dict[str, Any]], dict[str, Any]]:
    """Train the network on latents; an interrupted training resumes.

    Args:
        images: The raw images, read only if ``training.latents`` is ``on_the_fly``.
        scoring: Parameters of `assemble_model`. Missing val images or regions are reported here,
            before the training.
        champions: Finds the champion if ``training.init_from`` is ``champion``.

    Returns:
        The checkpoints, the training log, and the last row of the log with the totals and the
        origin of the initial weights.
    """
    from decodiff_pipeline.data.regions import load_regions
    from decodiff_pipeline.training.run import train
    from decodiff_pipeline.training.scoring import images_to_fit

    if scoring.looks_at_images:
        train_rows = manifest[(manifest["split"] == "train") & (manifest["label"] == "good")]
        images_to_fit(manifest, set(train_rows["category"]))
    regions = load_regions(scoring.regions, manifest, geometry)
    log, summary = train(
        manifest,
        cache,
        store,
        images=images,
        geometry=geometry,
        autoencoder=autoencoder,
        latents=latents,
        config=config,
        champions=champions,
        compute=compute,
        regions=regions,
    )
    return store, log, summary


def assemble_model(
    checkpoints: CheckpointStore,
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    autoencoder: AutoencoderConfig,
    config: ScoringConfig,
    folder: Path,
    record: Path,
) -> tuple[Any, str]:
    """Assemble autoencoder, network and scoring, and fit scoring and category recognition.

    Args:
        folder: Folder of the model. It is kept if it was made from the same inputs.
        record: Record of the model in the folder.

    Returns:
        A :class:`decodiff_pipeline.deco.pipeline.DeCoDiffPipeline`, or ``folder`` if it is kept;
        and the SHA-256 of the inputs.
    """
    from decodiff_pipeline.deco.autoencoder import load_autoencoder
    from decodiff_pipeline.training.category_recognition import fit_recognition
    from decodiff_pipeline.training.model_record import inputs_sha256, is_made
    from decodiff_pipeline.training.scoring_fit import build_model
    from decodiff_pipeline.training.state import trained_network

    network = trained_network(checkpoints)
    inputs = inputs_sha256(network, manifest, geometry, autoencoder, config)
    if is_made(folder, record, inputs):
        logger.info("%s was made from the same network, data and parameters: it is kept", folder)
        return folder, inputs
    images = images.of(manifest)
    model = build_model(
        load_autoencoder(autoencoder),
        network,
        manifest=manifest,
        images=images,
        geometry=geometry,
        config=config,
    )
    if config.false_refusals is not None:
        fit_recognition(model, manifest, images, config.false_refusals)
    return model, inputs


def record_model(
    inputs: str,
    folder: Path,
    record: Path,
    provenance: dict[str, Any],
    geometry: PreprocessConfig,
    autoencoder: AutoencoderConfig,
    latents: LatentCacheConfig,
    training: TrainingConfig,
    scoring: ScoringConfig,
) -> dict[str, Any]:
    """Digests, code version and parameters of the saved model, as a JSON value.

    If the model was kept, so are code version and parameters of its record.
    """
    from decodiff_pipeline.training.model_record import make_record

    parameters = {
        "preprocessing": geometry,
        "autoencoder": autoencoder,
        "latent_cache": latents,
        "training": training,
        "scoring": scoring,
    }
    return make_record(folder, record, inputs, provenance, parameters)


def loss_rows(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Columns ``step`` and ``loss`` of the training log, for `dvc plots`."""
    return [{"step": row["step"], "loss": row["loss"]} for row in log if "loss" in row]
