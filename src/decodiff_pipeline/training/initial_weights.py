"""The initial weights of a training: random, from a file, or the champion's."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from decodiff_pipeline.deco.autoencoder import load_autoencoder, same_autoencoder
from decodiff_pipeline.deco.initialise import InitialWeights, load_initial_weights, weights_file
from decodiff_pipeline.deco.tensor_files import (
    network_folder,
    read_network_config,
    read_safetensors,
    weights_sha256,
)
from decodiff_pipeline.deco.unet import PRESETS
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.errors import ConfigurationError, ModelError
from decodiff_pipeline.training.config import CHAMPION
from decodiff_pipeline.training.identity import differences
from decodiff_pipeline.training.state import trained_network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decodiff_pipeline.deco.unet import DeCoDiffUNet
    from decodiff_pipeline.training.champion import Champion, Champions
    from decodiff_pipeline.training.checkpoints import Checkpoint, CheckpointStore
    from decodiff_pipeline.training.config import TrainingConfig

logger = logging.getLogger(__name__)

STATISTICS = ("latent_mean", "latent_std")
# The part of a run's identity that depends on its initial weights.
START_KEYS = ("init_from_sha256", "channel_statistics")
MAX_NAMES = 20  # tensor names in a log line

Start = tuple[dict[str, Any], dict[str, Any]]  # additions to the identity; record of the start


def initialise_weights(
    unet: DeCoDiffUNet,
    identity: dict[str, Any],
    config: TrainingConfig,
    *,
    store: CheckpointStore,
    champions: Champions | None,
    autoencoder: AutoencoderConfig,
) -> Start:
    """Set the initial weights of a network, as ``config.init_from`` says.

    A finished training that started from an earlier champion is not repeated when its own result
    has become the champion.

    Args:
        unet: The network, with random weights and with the channel statistics of the latents.
        identity: The rest of the run's identity.

    Returns:
        The additions to the identity, and a record of the start: ``kind`` (``scratch``, ``file``
        or ``champion``) and the source of the weights.

    Raises:
        ConfigurationError: ``training.init_from`` does not exist, or is ``champion`` where
            champions are not looked up.
        ModelError: The weights cannot be read, or those of a file do not fit; MLflow does not
            answer.
    """
    if config.init_from is None:
        return _start(unet, {"kind": "scratch"})
    if config.init_from != CHAMPION:
        weights = load_weights(unet, config.init_from)
        return _start(unet, {"kind": "file", "path": config.init_from, "sha256": weights.sha256})
    if champions is None:
        msg = "training.init_from is champion, which is not looked up here; give a path, or scratch"
        raise ConfigurationError(msg)
    stored = None if config.resume == "never" else _same_but_for_start(store, identity)
    if stored is not None and (stored.start or {}).get("init_from") == CHAMPION:
        return _stored_start(unet, stored)
    champion = champions.fetch()
    if stored is not None and champion is not None and _is_result(champion, store, stored):
        logger.info("the champion, version %s of %s, is the result of the training here",
                    champion.version, champion.model)  # fmt: skip
        return _stored_start(unet, stored)
    return _from_champion(unet, champion, champions.model, config, autoencoder)


def check_initial_weights(
    config: TrainingConfig, champions: Champions | None, autoencoder: AutoencoderConfig
) -> None:
    """Check, before any other work, that the initial weights can be used.

    Raises:
        ConfigurationError: ``training.init_from`` does not exist.
        ModelError: MLflow does not answer, or its files are not the registered ones; or
            ``training.init_from`` is a network with another architecture.
    """
    if config.init_from is None:
        return
    if config.init_from == CHAMPION:
        champion = None if champions is None else champions.fetch()
        if champion is not None:
            reasons = incompatibilities(champion.folder, config, autoencoder)
            if reasons:
                reason = _reason(champion, reasons)
                logger.warning("the training will start from scratch: %s", reason)
        return
    source = _existing(config.init_from)
    reasons = incompatibilities(source, config, None) if source.is_dir() else []
    if reasons:
        raise ModelError(
            f"training.init_from is {source}, a model of another kind: {' and '.join(reasons)}; "
            "train as it was trained, or set training.init_from to scratch"
        )


def incompatibilities(
    model: Path,
    config: TrainingConfig,
    autoencoder: AutoencoderConfig | None,
    latent_shape: Sequence[int] | None = None,
) -> list[str]:
    """The reasons why a training cannot start from the weights of a saved model.

    Args:
        autoencoder: The training's autoencoder; ``None`` is not compared.
        latent_shape: (C, h, w) of the training's latents; ``None`` is not compared.

    Returns:
        A phrase for each difference.
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
        found, wanted = ("x".join(map(str, one)) for one in (shape, latent_shape))
        reasons.append(f"its latents are {found} instead of {wanted} (preprocessing)")
    standardised = stored.get("latent_mean") is not None
    if standardised != config.standardise_latents:
        reasons.append(f"its training.standardise_latents is {str(standardised).lower()}")
    if autoencoder is not None and not same_autoencoder(
        load_autoencoder(autoencoder), load_autoencoder(AutoencoderConfig(str(model), "vae"))
    ):
        reasons.append(f"its autoencoder is not {autoencoder.source}")
    return reasons


def load_weights(unet: DeCoDiffUNet, init_from: str) -> InitialWeights:
    """Copy the weights of a file or folder into a network, and log which tensors are used.

    Raises:
        ConfigurationError: The path does not exist.
        ModelError: The weights cannot be read or do not fit.
    """
    source = _existing(init_from)
    weights = load_initial_weights(unet, source)
    logger.info("initial weights: %d tensors of %s (SHA-256 %s)",
                len(weights.used), source, weights.sha256)  # fmt: skip
    for kind, names in (
        ("not used, of the file", weights.unused),
        ("left as they were, of the network", weights.untouched),
    ):
        if names:
            logger.info("%s: %d tensors: %s", kind, len(names), _summary(names))
    return weights


def initial_sha256(init_from: str | None) -> str | None:
    """SHA-256 of the weights that :func:`load_weights` loads; None for random ones.

    Raises:
        ConfigurationError: The path does not exist, or it is ``champion``, which is no fixed
            version.
        ModelError: The path holds no weights.
    """
    if init_from is None:
        return None
    if init_from == CHAMPION:
        raise ConfigurationError(
            "training.init_from is champion, which can change between the variants of an ablation; "
            "set it to scratch, or to the path of a model"
        )
    return weights_sha256(weights_file(_existing(init_from)))


def _existing(init_from: str) -> Path:
    source = Path(init_from)
    if not source.exists():
        raise ConfigurationError(
            f"training.init_from is {init_from}, where there is nothing; give an existing file or "
            "folder, champion, or scratch for random weights"
        )
    return source


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
    reasons = incompatibilities(champion.folder, config, autoencoder, shape)
    if reasons:
        reason = _reason(champion, reasons)
        logger.warning("the training starts from scratch: %s", reason)
        return _start(unet, {**asked, "kind": "scratch", "reason": reason})
    logger.info("the training starts from version %s of %s, the champion (SHA-256 %s)",
                champion.version, champion.model, champion.sha256)  # fmt: skip
    weights = load_weights(unet, str(champion.folder))
    known = read_network_config(network_folder(champion.folder))["categories"]
    missing = [name for name in known if name not in unet.categories]
    if missing:
        logger.warning(
            "the champion knows %s, of which there are no training images: the new model will "
            "not know them; keep the images of its categories in the data set",
            ", ".join(missing),
        )
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


def _same_but_for_start(store: CheckpointStore, identity: dict[str, Any]) -> Checkpoint | None:
    """The newest checkpoint, if its identity is the same except for the initial weights."""
    stored = store.latest(tensors=False)
    if stored is None:
        return None
    old = {name: value for name, value in stored.identity.items() if name not in START_KEYS}
    return None if differences(old, identity) else stored


def _stored_start(unet: DeCoDiffUNet, stored: Checkpoint) -> Start:
    """The start of a checkpoint's run; the weights are loaded from the checkpoint later."""
    added = {name: stored.identity[name] for name in START_KEYS if name in stored.identity}
    unet.register_to_config(**added["channel_statistics"])
    return added, stored.start or {"kind": "file" if "init_from_sha256" in added else "scratch"}


def _is_result(champion: Champion, store: CheckpointStore, stored: Checkpoint) -> bool:
    if not stored.finished:
        return False
    tensors = read_safetensors(weights_file(champion.folder))
    trained = trained_network(store).state_dict()
    return trained.keys() == tensors.keys() and all(
        torch.equal(tensor, tensors[name]) for name, tensor in trained.items()
    )


def _reason(champion: Champion, reasons: list[str]) -> str:
    return f"version {champion.version} of {champion.model}, the champion, is of another kind: " + (
        " and ".join(reasons)
    )


def _summary(names: Sequence[str]) -> str:
    """All names; if there are many, counts by their first part."""
    if len(names) <= MAX_NAMES:
        return ", ".join(names)
    groups = Counter(name.split(".")[0] for name in names)
    return ", ".join(f"{group}.* ({count})" for group, count in groups.most_common())
