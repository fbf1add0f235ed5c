"""What makes two trainings the same, and hence which checkpoint a run may go on from."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.errors import CheckpointError
from decodiff_pipeline.training.config import RUN_ONLY, TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from decodiff_pipeline.training.checkpoints import Checkpoint, CheckpointStore

# Left to the machine, as ``bfloat16: auto`` is: what a checkpoint has is what was used so far.
AUTO = "auto"
# What a digest stands for, where its name does not say it.
BEHIND = {
    "latents_sha256": " (of train images, preprocessing, autoencoder and latent_cache)",
    "validation_sha256": " (of val images and latent_cache.synthetic_defects)",
}

logger = logging.getLogger(__name__)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between the identities of two runs.

    A parameter that did not exist yet when a checkpoint was written had its present default. One
    that is now ``auto`` is the machine's choice and differs from nothing.

    Returns:
        A phrase for each changed value, nested ones by their dotted name; empty for equal ones.
    """
    parameters = TrainingConfig.model_construct().model_dump(mode="json", exclude=RUN_ONLY)
    defaults = _flat({name: value for name, value in parameters.items() if name != "init_from"})
    before, after = (defaults | _flat(json.loads(json.dumps(each))) for each in (old, new))
    return [
        f"{name}{BEHIND.get(name, '')} was {before.get(name)} and is {after.get(name)}"
        for name in sorted({*before, *after})
        if after.get(name) not in (before.get(name), AUTO)
    ]


def resumable(
    store: CheckpointStore, identity: Mapping[str, Any], resume: str = AUTO
) -> Checkpoint | None:
    """The newest checkpoint, if it belongs to the run that is to be started.

    Returns:
        None where there is no checkpoint to go on from.

    Raises:
        CheckpointError: The newest checkpoint is damaged; or it is of an unfinished run of another
            kind, and ``resume`` is ``auto``.
    """
    checkpoint = None if resume == "never" else store.latest()
    if checkpoint is None:
        return None
    changes = ", ".join(differences(checkpoint.identity, identity))
    if not changes:
        return checkpoint
    if checkpoint.finished:
        logger.info(
            "the finished training here had other parameters (%s): starting a new one", changes
        )
        return None
    found = f"{store.path} holds an unfinished run (step {checkpoint.step}) with other parameters"
    if resume == "if_same":
        logger.warning("%s: %s; starting over (training.resume is if_same)", found, changes)
        return None
    raise CheckpointError(
        f"{found}: {changes}; put them back to go on, or start over with "
        "--params training.resume=never"
    )


def warn_of_other_machine(
    checkpoint: Checkpoint, precision: Mapping[str, Any], processes: int
) -> None:
    """Say so where a run goes on in another precision, or by more or fewer processes."""
    old, before = checkpoint.identity, checkpoint.processes or 1
    if before != processes:
        logger.info(
            "the training was begun with compute.processes=%d and goes on with %d: equal "
            "to rounding, not bit for bit", before, processes,
        )  # fmt: skip
    for name, value in precision.items():
        if name in old and old[name] != value:
            logger.warning(
                "%s was %s when the run began and is %s on this machine: it goes on, but not bit "
                "for bit as it would have there", name, old[name], value,
            )  # fmt: skip


def warn_of_interruption(newest: int, config: TrainingConfig, where: str = "") -> None:
    """Say how a training goes on that was stopped from outside."""
    logger.warning(
        "training was interrupted%s; the same command goes on from step %d, the newest checkpoint "
        "(training.checkpoint_every is %d)", where, newest, config.checkpoint_every,
    )  # fmt: skip


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
