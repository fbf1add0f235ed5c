"""The weights that a training starts from: random ones, those in a file, or the champion's."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from decodiff_pipeline.deco.autoencoder import load_autoencoder, same_autoencoder
from decodiff_pipeline.deco.initialise import InitialWeights, load_initial_weights, weights_file
from decodiff_pipeline.deco.tensor_files import (
    network_folder,
    read_network_config,
    read_network_folder,
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
# What of a run's identity follows from where it started.
STARTED = ("init_from_sha256", "channel_statistics")
NAMED = 20  # names that a line of the log has room for

Start = tuple[dict[str, Any], dict[str, Any]]


def initialise_weights(
    unet: DeCoDiffUNet,
    identity: dict[str, Any],
    config: TrainingConfig,
    *,
    store: CheckpointStore,
    champions: Champions | None,
    autoencoder: AutoencoderConfig,
) -> Start:
    """Give a new network its initial weights, as ``config.init_from`` asks.

    From the champion, a training is the same whichever version was the champion when it started:
    its own result may be by now, and must not be a reason to train once more.

    Args:
        unet: The network, with random weights and in the unit of the training latents.
        identity: What else decides the outcome of the run.

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
        weights = load_weights(unet, config.init_from)
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


def check_initial_weights(
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
    """Why a training cannot go on from the weights of a saved model.

    Args:
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
        found, wanted = ("x".join(map(str, each)) for each in (shape, latent_shape))
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
    """Copy the weights of a file or folder into a network, and log how many tensors it took.

    Raises:
        ConfigurationError: There is nothing at that path.
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
            logger.info("%s: %d tensors: %s", kind, len(names), _listed(names))
    return weights


def initial_sha256(init_from: str | None) -> str | None:
    """SHA-256 of the weights that :func:`load_weights` would take; None for random ones.

    Raises:
        ConfigurationError: There is nothing at that path, or it is the champion, which may be
            another one tomorrow.
        ModelError: There is nothing to take weights from.
    """
    if init_from is None:
        return None
    if init_from == CHAMPION:
        raise ConfigurationError(
            "training.init_from is champion, which moves, so that variants could start from "
            "different weights; give an ablation scratch, or the path of a model"
        )
    file = weights_file(_existing(init_from))
    state = file.stat()
    return _sha256(file, state.st_size, state.st_mtime_ns)


@cache
def _sha256(file: Path, _size: int, _modified: int) -> str:
    """The digest of a file as it was then: some gigabytes are read once."""
    return weights_sha256(file)


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


def _reason(champion: Champion, reasons: list[str]) -> str:
    return f"version {champion.version} of {champion.model}, the champion, is of another kind: " + (
        " and ".join(reasons)
    )


def _listed(names: Sequence[str]) -> str:
    """All names, or if they are many how many begin alike."""
    if len(names) <= NAMED:
        return ", ".join(names)
    groups = Counter(name.split(".")[0] for name in names)
    return ", ".join(f"{group}.* ({count})" for group, count in groups.most_common())
