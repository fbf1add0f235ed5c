"""Converts ``training.max_minutes`` into a number of steps, by measuring the duration of a step."""

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
WARM_UP = 2  # steps that are not timed, since the first ones are slower
MIN_STEPS, MAX_STEPS = 3, 50  # steps that are timed
SHARE = 0.02  # of `max_minutes` is spent on timing, or as much as `MIN_STEPS` take


@dataclass(frozen=True)
class Budget:
    """Number of optimiser steps that fit into ``max_minutes``, and the measured durations."""

    steps: int  # at least 1
    max_minutes: float
    seconds_per_step: float  # median over ``measured_steps``
    seconds_per_validation: float  # 0 without validation
    seconds_per_save: float  # duration of writing a checkpoint
    measured_steps: int


def planned_budget(
    store: CheckpointStore,
    config: TrainingConfig,
    identity: dict[str, Any],
    group: Group,
    measure: Callable[[], Budget],
) -> Budget:
    """The stored budget of a run; measured and stored if there is none.

    Raises:
        CheckpointError: The stored budget is damaged, or the folder cannot be written.
    """
    stored = None
    if group.first and config.resume != "never":
        stored = _stored(store.path, identity)
    content = group.broadcast(None if stored is None else asdict(stored))
    if content is not None:
        budget = Budget(**content)
    else:
        budget = measure()
        if group.first:
            _store(store.path, budget, identity)
    logger.info(
        "%g minutes are %d steps: %.3g s a step (median of %d), %.3g s a validation every %d "
        "steps, %.3g s a checkpoint every %d",
        *(budget.max_minutes, budget.steps, budget.seconds_per_step, budget.measured_steps),
        *(budget.seconds_per_validation, config.validate_every),
        *(budget.seconds_per_save, config.checkpoint_every),
    )
    return budget


def measured_budget(
    config: TrainingConfig,
    *,
    train_step: Callable[[int], object],
    validate: Callable[[], object],
    save: Callable[[], object],
    group: Group = ALONE,
) -> Budget:
    """Time some optimiser steps, a validation and a save.

    The caller restores what they change. All processes of a group use the times of the first.
    """

    def timed(work: Callable[[], object]) -> float:
        before = time.perf_counter()
        work()
        return group.broadcast(time.perf_counter() - before)

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
    # A monitored run saves at each new best validation; at worst, at each validation.
    saves = 1 / config.checkpoint_every + (1 / config.validate_every if config.monitored else 0)
    average = step + validation / config.validate_every + saving * saves
    # The last step validates and saves in any case.
    left = seconds - group.broadcast(time.perf_counter() - started) - validation - saving
    return Budget(
        steps=max(1, int(left / average)),
        max_minutes=config.max_minutes or 0,
        seconds_per_step=step,
        seconds_per_validation=validation,
        seconds_per_save=saving,
        measured_steps=len(durations),
    )


def _stored(folder: Path, identity: dict[str, Any]) -> Budget | None:
    """The budget of a run with this identity, if one is stored."""
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


def _store(folder: Path, budget: Budget, identity: dict[str, Any]) -> None:
    try:
        with replacing(folder / FILE) as temporary:
            temporary.write_text(json.dumps({**asdict(budget), "identity": identity}, indent=1))
    except OSError as error:
        msg = f"{folder / FILE} cannot be written ({error}); free some space and start again"
        raise CheckpointError(msg) from error
