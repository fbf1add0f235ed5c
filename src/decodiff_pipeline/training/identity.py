"""Decides whether a run can resume from a checkpoint: their identities must be equal."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.errors import CheckpointError
from decodiff_pipeline.training.config import RUN_ONLY, TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from decodiff_pipeline.training.checkpoints import Checkpoint, CheckpointStore

AUTO = "auto"  # e.g. of ``bfloat16``: chosen by the machine; the checkpoint has the choice
# What a digest is computed from.
DIGEST_INPUTS = {
    "latents_sha256": " (of train images, preprocessing, autoencoder and latent_cache)",
    "validation_sha256": " (of val images and latent_cache.synthetic_defects)",
}

logger = logging.getLogger(__name__)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The differences between the identities of two runs.

    A parameter that is missing in an older checkpoint counts as having today's default. A new
    value of ``auto`` differs from no old one.

    Returns:
        A phrase for each changed value, nested ones by their dotted name.
    """
    parameters = TrainingConfig.model_construct().model_dump(mode="json", exclude=RUN_ONLY)
    defaults = _flat({name: value for name, value in parameters.items() if name != "init_from"})
    before, after = (defaults | _flat(json.loads(json.dumps(one))) for one in (old, new))
    return [
        f"{name}{DIGEST_INPUTS.get(name, '')} was {before.get(name)} and is {after.get(name)}"
        for name in sorted({*before, *after})
        if after.get(name) not in (before.get(name), AUTO)
    ]


def resumable(
    store: CheckpointStore, identity: Mapping[str, Any], resume: str = AUTO
) -> Checkpoint | None:
    """The newest checkpoint, if the run can resume from it; else None.

    Raises:
        CheckpointError: The newest checkpoint is damaged; or it belongs to an unfinished run with
            other parameters, and ``resume`` is ``auto``.
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
    unfinished = (
        f"{store.path} holds an unfinished run (step {checkpoint.step}) with other parameters"
    )
    if resume == "if_same":
        logger.warning("%s: %s; starting over (training.resume is if_same)", unfinished, changes)
        return None
    raise CheckpointError(
        f"{unfinished}: {changes}; put them back to resume it, or start over with "
        "--params training.resume=never"
    )


def warn_of_other_machine(
    checkpoint: Checkpoint, precision: Mapping[str, Any], processes: int
) -> None:
    """Log that a run resumes in another precision or with another number of processes."""
    old, before = checkpoint.identity, checkpoint.processes or 1
    if before != processes:
        logger.info(
            "the training was begun with compute.processes=%d and goes on with %d; results are "
            "equal up to rounding, not bit for bit", before, processes,
        )  # fmt: skip
    for name, value in precision.items():
        if name in old and old[name] != value:
            logger.warning(
                "%s was %s when the run began and is %s on this machine; the run goes on, but its "
                "results are not equal bit for bit", name, old[name], value,
            )  # fmt: skip


def warn_of_interruption(newest: int, config: TrainingConfig, where: str = "") -> None:
    """Log how to resume an interrupted training."""
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
