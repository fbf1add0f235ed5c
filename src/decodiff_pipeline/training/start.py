"""Where a training starts: random weights, those in a file, or those of the champion."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from decodiff_pipeline.deco.autoencoder import load_autoencoder, same_autoencoder
from decodiff_pipeline.deco.tensor_files import (
    network_folder,
    read_network_config,
    read_network_folder,
)
from decodiff_pipeline.deco.unet import PRESETS
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.errors import ConfigurationError, ModelError
from decodiff_pipeline.training.config import CHAMPION
from decodiff_pipeline.training.identity import differences
from decodiff_pipeline.training.initial_weights import existing, initialise
from decodiff_pipeline.training.trained import trained_network

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from decodiff_pipeline.deco.unet import DeCoDiffUNet
    from decodiff_pipeline.training.champion import Champion, Champions
    from decodiff_pipeline.training.checkpoints import Checkpoint, CheckpointStore
    from decodiff_pipeline.training.config import TrainingConfig

logger = logging.getLogger(__name__)

STATISTICS = ("latent_mean", "latent_std")
# What of a run's identity follows from where it started.
STARTED = ("init_from_sha256", "channel_statistics")

Start = tuple[dict[str, Any], dict[str, Any]]


def begin(
    unet: DeCoDiffUNet,
    identity: dict[str, Any],
    config: TrainingConfig,
    *,
    store: CheckpointStore,
    champions: Champions | None,
    autoencoder: AutoencoderConfig,
) -> Start:
    """Give a new network the weights that its training starts from.

    From the champion, a training is the same whichever version was the champion when it started:
    its own result may be by now, and must not be a reason to train once more.

    Args:
        unet: The network, with random weights and in the unit of the training latents.
        identity: What else decides the outcome of the run.
        config: How to train.
        store: Where the run keeps its state.
        champions: Where the champion is looked up, if anywhere.
        autoencoder: Which autoencoder made the latents.

    Returns:
        What the start adds to the identity, and a record of it: ``kind`` (``scratch``, ``file``
        or ``champion``) and what that was.

    Raises:
        ConfigurationError: There is nothing at ``training.init_from``, or no champion to be had
            in this place.
        ModelError: The weights cannot be read, or those of a file do not fit; MLflow does not
            answer.
    """
    if config.init_from is None:
        return _start(unet, {"kind": "scratch"})
    if config.init_from != CHAMPION:
        weights = initialise(unet, config.init_from)
        return _start(unet, {"kind": "file", "path": config.init_from, "sha256": weights.sha256})
    if champions is None:
        msg = "training.init_from is champion, which is not looked up here; give a path, or scratch"
        raise ConfigurationError(msg)
    stored = None if config.resume == "never" else _otherwise_the_same(store, identity)
    if stored is not None and (stored.start or {}).get("init_from") == CHAMPION:
        return _as_before(unet, stored)
    champion = champions.fetch()
    if stored is not None and champion is not None and _is_result(champion, store, stored):
        logger.info("the champion, version %s of %s, is the result of the training here",
                    champion.version, champion.model)  # fmt: skip
        return _as_before(unet, stored)
    return _from_champion(unet, champion, champions.model, config, autoencoder)


def check(
    config: TrainingConfig, champions: Champions | None, autoencoder: AutoencoderConfig
) -> None:
    """Look for the weights to start from before anything else is done.

    Raises:
        ConfigurationError: There is nothing at ``training.init_from``.
        ModelError: MLflow does not answer or its files are not the registered ones; the file
            at ``training.init_from`` is of another network.
    """
    if config.init_from is None:
        return
    if config.init_from == CHAMPION:
        champion = None if champions is None else champions.fetch()
        reasons = [] if champion is None else unlike(champion.folder, config, autoencoder)
        if champion is not None and reasons:
            logger.warning("the training will start from scratch: %s", _reason(champion, reasons))
        return
    source = existing(config.init_from)
    reasons = unlike(source, config, None) if source.is_dir() else []
    if reasons:
        msg = (
            f"training.init_from is {source}, a model of another kind: {' and '.join(reasons)}; "
            "train as it was trained, or set training.init_from to scratch"
        )
        raise ModelError(msg)


def unlike(
    model: Path,
    config: TrainingConfig,
    autoencoder: AutoencoderConfig | None,
    latent_shape: Sequence[int] | None = None,
) -> list[str]:
    """Why a training cannot go on from the weights of a saved model.

    Args:
        model: Its folder.
        config: How the training is to be.
        autoencoder: Which autoencoder makes its latents; ``None`` is not compared.
        latent_shape: Channels, height and width of its latents; ``None`` is not compared.

    Returns:
        A phrase for each difference; none where it can.
    """
    stored = read_network_config(network_folder(model))
    reasons = []
    sizes = {name: stored[name] for name in asdict(PRESETS[config.preset])}
    if sizes != asdict(PRESETS[config.preset]):
        names = [name for name, preset in PRESETS.items() if asdict(preset) == sizes]
        found = names[0] if names else f"none of the presets but {sizes}"
        reasons.append(f"its training.preset is {found} instead of {config.preset}")
    shape = (stored["in_channels"], stored["sample_size"], stored["sample_size"])
    if latent_shape is not None and shape != tuple(latent_shape):
        reasons.append(
            f"its latents are {_by(shape)} instead of {_by(latent_shape)} (preprocessing)"
        )
    standardised = stored.get("latent_mean") is not None
    if standardised != config.standardise_latents:
        reasons.append(f"its training.standardise_latents is {str(standardised).lower()}")
    if autoencoder is not None and not _encoded_alike(model, autoencoder):
        reasons.append(f"its autoencoder is not {autoencoder.source}")
    return reasons


def _from_champion(
    unet: DeCoDiffUNet,
    champion: Champion | None,
    model: str,
    config: TrainingConfig,
    autoencoder: AutoencoderConfig,
) -> Start:
    asked = {"init_from": CHAMPION}
    if champion is None:
        reason = f"{model} has no champion yet"
        logger.info("the training starts from scratch: %s", reason)
        return _start(unet, {**asked, "kind": "scratch", "reason": reason})
    shape = (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    reasons = unlike(champion.folder, config, autoencoder, shape)
    if reasons:
        reason = _reason(champion, reasons)
        logger.warning("the training starts from scratch: %s", reason)
        return _start(unet, {**asked, "kind": "scratch", "reason": reason})
    logger.info("the training starts from version %s of %s, the champion (SHA-256 %s)",
                champion.version, champion.model, champion.sha256)  # fmt: skip
    weights = initialise(unet, str(champion.folder))
    known = read_network_config(network_folder(champion.folder))["categories"]
    lost = [name for name in known if name not in unet.categories]
    if lost:
        logger.warning(
            "the champion knows %s, of which there are no training images: the new model will "
            "not; keep the images of its categories in the data set", ", ".join(lost),
        )  # fmt: skip
    record = {"model": champion.model, "version": champion.version,
              "model_sha256": champion.sha256, "sha256": weights.sha256}  # fmt: skip
    return _start(unet, {**asked, "kind": "champion", **record})


def _start(unet: DeCoDiffUNet, record: dict[str, Any]) -> Start:
    identity: dict[str, Any] = {
        "channel_statistics": {name: unet.config[name] for name in STATISTICS}
    }
    if "sha256" in record:
        identity["init_from_sha256"] = record["sha256"]
    return identity, record


def _otherwise_the_same(store: CheckpointStore, identity: dict[str, Any]) -> Checkpoint | None:
    """The newest checkpoint, if it differs from a run at most by where it started."""
    stored = store.latest(tensors=False)
    if stored is None:
        return None
    old = {name: value for name, value in stored.identity.items() if name not in STARTED}
    return None if differences(old, identity) else stored


def _as_before(unet: DeCoDiffUNet, stored: Checkpoint) -> Start:
    """The start of the run that goes on; its weights are those of its checkpoint."""
    kept = {name: stored.identity[name] for name in STARTED if name in stored.identity}
    unet.register_to_config(**kept["channel_statistics"])
    return kept, stored.start or {"kind": "file" if "init_from_sha256" in kept else "scratch"}


def _is_result(champion: Champion, store: CheckpointStore, stored: Checkpoint) -> bool:
    if not stored.finished:
        return False
    _, tensors = read_network_folder(network_folder(champion.folder))
    trained = trained_network(store).state_dict()
    return trained.keys() == tensors.keys() and all(
        torch.equal(tensor, tensors[name]) for name, tensor in trained.items()
    )


def _encoded_alike(model: Path, autoencoder: AutoencoderConfig) -> bool:
    return same_autoencoder(
        load_autoencoder(autoencoder), load_autoencoder(AutoencoderConfig(str(model), "vae"))
    )


def _reason(champion: Champion, reasons: list[str]) -> str:
    return f"version {champion.version} of {champion.model}, the champion, is of another kind: " + (
        " and ".join(reasons)
    )


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
