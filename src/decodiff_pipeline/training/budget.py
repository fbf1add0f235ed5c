"""A length in minutes, turned into a number of steps once and for all."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.compute.group import ALONE, Group
from decodiff_pipeline.data.atomic import replacing
from decodiff_pipeline.errors import CheckpointError
from decodiff_pipeline.training.identity import differences

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from decodiff_pipeline.training.checkpoints import CheckpointStore
    from decodiff_pipeline.training.config import TrainingConfig

logger = logging.getLogger(__name__)

FILE = "budget.json"
WARM_UP = 2  # steps that are not counted: the first ones set up what later ones find
MIN_STEPS, MAX_STEPS = 3, 50
SHARE = 0.02  # of the minutes go into measuring steps, if that is enough for MIN_STEPS


@dataclass(frozen=True)
class Budget:
    """How long the parts of a training take, and how many steps that makes."""

    steps: int  # optimiser steps that fit into the minutes, at least 1
    max_minutes: float  # the minutes
    seconds_per_step: float  # median over ``measured_steps``
    seconds_per_validation: float  # of one validation; 0 where there is none
    seconds_per_save: float  # of writing one checkpoint
    measured_steps: int  # steps measured


def planned_budget(
    store: CheckpointStore,
    config: TrainingConfig,
    identity: dict[str, Any],
    group: Group,
    measure: Callable[[], Budget],
) -> Budget:
    """The budget of a run, measured unless an earlier start of it has done so.

    Raises:
        CheckpointError: What was measured before is damaged, or the folder cannot be written to.
    """
    stored = None
    if group.first and config.resume != "never":
        stored = stored_budget(store.path, identity)
    content = group.broadcast(None if stored is None else asdict(stored))
    if content is not None:
        budget = Budget(**content)
    else:
        budget = measure()
        if group.first:
            store_budget(store.path, budget, identity)
    _describe(budget, config)
    return budget


def measured_budget(
    config: TrainingConfig,
    *,
    train_step: Callable[[int], object],
    validate: Callable[[], object],
    save: Callable[[], object],
    group: Group = ALONE,
) -> Budget:
    """Take some real steps, one validation and one save, and plan the run by them.

    What the measurement changes is for the caller to put back. All processes of a group go by the
    clock of the first.
    """

    def timed(work: Callable[[], object]) -> float:
        return group.broadcast(_seconds(work))

    seconds = 60 * (config.max_minutes or 0)
    started = time.perf_counter()
    for number in range(WARM_UP):
        train_step(number)
    durations: list[float] = []
    while len(durations) < MIN_STEPS or (
        len(durations) < MAX_STEPS and sum(durations) < SHARE * seconds
    ):
        durations.append(timed(lambda: train_step(WARM_UP + len(durations))))
    step, validation, saving = median(durations), timed(validate), timed(save)
    # A watched run saves at every validation that is a new best; all of them are reckoned with.
    saves = 1 / config.checkpoint_every + (1 / config.validate_every if config.monitored else 0)
    average = step + validation / config.validate_every + saving * saves
    # Besides those due at their intervals, the last step validates and saves as well.
    left = seconds - group.broadcast(time.perf_counter() - started) - validation - saving
    return Budget(
        steps=max(1, int(left / average)),
        max_minutes=config.max_minutes or 0,
        seconds_per_step=step,
        seconds_per_validation=validation,
        seconds_per_save=saving,
        measured_steps=len(durations),
    )


def stored_budget(folder: Path, identity: dict[str, Any]) -> Budget | None:
    """The budget that an earlier start of the same run has measured, or None.

    Raises:
        CheckpointError: The file is damaged.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text())
        if differences(content.pop("identity"), identity):
            return None
        return Budget(**content)
    except Exception as error:
        msg = f"{file} is damaged ({error!r}); delete it to have the steps measured again"
        raise CheckpointError(msg) from error


def store_budget(folder: Path, budget: Budget, identity: dict[str, Any]) -> None:
    """Keep a budget for later starts of the same run.

    Raises:
        CheckpointError: The file system refuses.
    """
    try:
        with replacing(folder / FILE) as temporary:
            temporary.write_text(json.dumps({**asdict(budget), "identity": identity}, indent=1))
    except OSError as error:
        msg = f"{folder / FILE} cannot be written ({error}); free some space and start again"
        raise CheckpointError(msg) from error


def _describe(budget: Budget, config: TrainingConfig) -> None:
    """Say in the log what was measured and what follows from it."""
    logger.info(
        "%g minutes are %d steps: %.3g s a step (median of %d), %.3g s a validation every %d "
        "steps, %.3g s a checkpoint every %d",
        budget.max_minutes,
        budget.steps,
        budget.seconds_per_step,
        budget.measured_steps,
        budget.seconds_per_validation,
        config.validate_every,
        budget.seconds_per_save,
        config.checkpoint_every,
    )


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
