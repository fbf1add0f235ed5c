"""The training loop: optimiser steps, validation, log, checkpoints, resuming."""

from __future__ import annotations

import logging
import math
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from decodiff_pipeline.compute.config import use_threads
from decodiff_pipeline.compute.group import ALONE, Group
from decodiff_pipeline.deco.device import keep_freed_memory, to_device
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.errors import CheckpointError, ModelError
from decodiff_pipeline.training.batches import Batch, Batches, BatchesAhead
from decodiff_pipeline.training.budget import Budget, measured_budget, planned_budget
from decodiff_pipeline.training.checkpoints import (
    Checkpoint,
    CheckpointStore,
    Selection,
    TrainingLog,
)
from decodiff_pipeline.training.identity import (
    resumable,
    warn_of_interruption,
    warn_of_other_machine,
)
from decodiff_pipeline.training.objective import accumulate_gradients
from decodiff_pipeline.training.schedule import scheduled_rate
from decodiff_pipeline.training.state import TrainingState, load_average

if TYPE_CHECKING:
    from decodiff_pipeline.deco.unet import DeCoDiffUNet
    from decodiff_pipeline.training.config import TrainingConfig
    from decodiff_pipeline.training.validation import Validation

logger = logging.getLogger(__name__)


@dataclass
class TrainingRun:
    """Trains a network, or resumes its training.

    Attributes:
        unet: The network with its initial weights; it is trained in place.
        validation: Measures the network on val images; may have none.
        identity: Everything that determines the result. A checkpoint is resumed only if its
            identity is the same.
        start: Record of the initial weights, as
            :func:`~decodiff_pipeline.training.initial_weights.initialise_weights` returns it.
        group: The processes that train together. Each has its own run; the first one writes the
            checkpoints and the log.
    """

    unet: DeCoDiffUNet
    batches: Batches
    validation: Validation
    config: TrainingConfig
    store: CheckpointStore
    identity: dict[str, Any]
    start: dict[str, Any] = field(default_factory=dict)
    group: Group = ALONE
    log: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        per_epoch = math.ceil(len(self.batches) / self.config.accumulation)
        # 0 with `max_minutes`, until the duration of a step is measured.
        self.total = self.config.steps or (self.config.epochs or 0) * per_epoch
        self.step = 0
        self.finished = False
        self.pending: list[float] = []
        self.unread: list[torch.Tensor] = []
        self.obsolete: list[int] = []
        self.best = Selection()
        self.scheduler = DeCoDiffScheduler()
        self.file = TrainingLog(self.store.path, self.log)

    def run(self, threads: int | None = None) -> DeCoDiffUNet:
        """Train from the newest checkpoint, or from the initial weights, to the last step.

        Args:
            threads: CPU threads, where ``training.threads`` is not set.

        Returns:
            The network with the averaged (EMA) weights of the last or the best step, as
            ``training.weights`` says.

        Raises:
            CheckpointError: A checkpoint is damaged, cannot be written, or belongs to an
                unfinished run with other parameters.
            ConfigurationError: ``training.monitor`` is needed and cannot be measured.
            ModelError: The loss or the gradient norm is not finite.
        """
        if self.config.monitored:
            self.validation.require(self.config.monitor)
        self.state = TrainingState(self.unet, self.config, self.group)
        self.ahead = BatchesAhead(self.batches, self.state.device, not self.state.is_waiting)
        self.precision = {"bfloat16": self.state.bfloat16, **self.batches.identity()}
        if self.state.device.type == "cpu":
            keep_freed_memory()
        with self.store.locked() if self.group.first else nullcontext():
            if self.group.first:
                self.store.tidy()
            self.group.barrier()
            with use_threads(self.config.threads or threads):
                self._resume_or_plan()
                try:
                    self._train()
                except (KeyboardInterrupt, SystemExit):
                    warn_of_interruption(
                        self._newest(), self.config, f" after step {self.step} of {self.total}"
                    )
                    raise
            self.group.barrier()
            return self._result()

    def _resume_or_plan(self) -> None:
        """Load the newest checkpoint, or plan a new training."""
        checkpoint = resumable(self.store, self.identity, self.config.resume)
        steps = self.group.gather(None if checkpoint is None else checkpoint.step)
        if len({*steps}) > 1:
            raise CheckpointError(
                f"the processes find checkpoints of different steps in {self.store.path}: {steps}; "
                "all nodes must see the same folder"
            )
        if checkpoint is not None:
            self._resume(checkpoint)
        else:
            self.obsolete = self.store.steps()
            self.total = (
                self.total
                or planned_budget(
                    self.store, self.config, self.identity, self.group, self._measured
                ).steps
            )
        if self.group.first:
            self.file.restart(checkpoint.log if checkpoint is not None else [])

    def _measured(self) -> Budget:
        """Measure the duration of a step, then restore the initial state."""
        start = {name: tensor.clone() for name, tensor in self.state.tensors().items()}
        random = torch.get_rng_state()
        self.unet.train()

        def train_step(step: int) -> None:
            self._accumulate(step)
            self.state.apply_gradients(rate=0.0).item()

        def save() -> None:
            if self.group.first:
                self.store.dry_run(self.state.tensors())

        budget = measured_budget(
            self.config, train_step=train_step, validate=self.validate, save=save, group=self.group
        )
        self.state.restore(start, step=0)
        torch.set_rng_state(random)
        return budget

    def _train(self) -> None:
        self.unet.train()
        started, images, config = time.perf_counter(), 0, self.config
        every = (config.log_every, config.validate_every, config.checkpoint_every)
        bar = tqdm(total=self.total, initial=self.step, desc="training", unit="steps",
                   disable=not (config.progress_bar and self.group.first))  # fmt: skip
        with bar:
            while not self.finished:
                images += self._train_step()
                self.step += 1
                speed = images / (time.perf_counter() - started)
                bar.update()
                if self.state.is_waiting or any(map(self._due, every)):
                    self._read_losses()
                    bar.set_postfix(loss=f"{self.pending[-1]:.4f}", images_per_s=f"{speed:.1f}")
                improved = self._log_row(speed)
                self.finished = self.step == self.total or self._exhausted()
                if improved or self.finished or self._due(self.config.checkpoint_every):
                    self._save()

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.total

    def _train_step(self) -> int:
        """Take an optimiser step; returns the number of images. The loss is read later."""
        loss, count = self._accumulate(self.step)
        norm = self.state.apply_gradients(scheduled_rate(self.step, self.total, self.config))
        self.unread.append(torch.stack([loss, norm.to(loss.dtype)]))
        return count

    def _accumulate(self, step: int) -> tuple[torch.Tensor, int]:
        numbers = range(step * self.config.accumulation, (step + 1) * self.config.accumulation)
        batches = ((number, self._prepared(self.ahead.batch(number))) for number in numbers)
        return accumulate_gradients(self.state, self.scheduler, batches, self.config)

    def _read_losses(self) -> None:
        """Copy the losses and gradient norms of the steps since the last call from the device.

        Raises:
            ModelError: A value is not finite.
        """
        shares = self.group.gather(torch.stack(self.unread).tolist())
        self.unread.clear()
        for step, parts in enumerate(zip(*shares, strict=True), self.step + 1 - len(shares[0])):
            loss, norm = sum(share for share, _ in parts), parts[0][1]
            for name, value in (("loss", loss), ("gradient's norm", norm)):
                if not math.isfinite(value):
                    raise self._diverged(name, value, step)
            self.pending.append(loss)

    def _diverged(self, name: str, value: float, step: int) -> ModelError:
        newest = self._newest()
        last = f"the last good checkpoint in {self.store.path} is that of step {newest}"
        return ModelError(
            f"the {name} is {value} at step {step}; "
            f"{last if newest else 'there is no checkpoint yet'}; lower training.learning_rate "
            f"(now {self.config.learning_rate}) and set training.resume to never"
        )

    def _newest(self) -> int:
        """Step of this training's newest checkpoint, 0 without one."""
        return max({*self.store.steps()} - {*self.obsolete}, default=0)

    def _log_row(self, speed: float) -> bool:
        """Write a log row if one is due; returns whether its validation is the best so far."""
        validating = self._due(self.config.validate_every)
        if not (validating or self._due(self.config.log_every)):
            return False
        row = {
            "step": self.step,
            "epoch": self.step * self.config.accumulation / len(self.batches),
            "loss": sum(self.pending) / len(self.pending),
            "learning_rate": self.state.optimizers[0].param_groups[0]["lr"],
            "images_per_second": speed,
        }
        self.pending.clear()
        if validating:
            row |= self.validate()
        if self.group.first:
            self.file.append(row)
        monitor = self.config.monitor
        monitored = validating and self.config.monitored
        return monitored and self.best.update(monitor, self.step, row[monitor])

    def validate(self) -> dict[str, float]:
        """Measure the network with its averaged (EMA) weights on val images.

        Raises:
            ModelError: A value is not finite.
        """
        with self.state.averaged(), self.state.autocast():
            measured = self.group.broadcast(
                self.validation.measure(self.unet, self.scheduler, self._prepared, self.group)
            )
        for name, value in measured.items():
            if not math.isfinite(value):
                raise self._diverged(f"validation's {name}", value, self.step)
        return measured

    def _exhausted(self) -> bool:
        patience = self.config.patience
        if patience is None or self.best.waited < patience:
            return False
        logger.info(
            "stopping at step %d of %d: the best %s, %.5g, is %d validations old (step %d)",
            self.step, self.total, self.config.monitor, self.best.value, self.best.waited,
            self.best.step,
        )  # fmt: skip
        return True

    def _prepared(self, batch: Batch) -> Batch:
        latents, category_ids = (to_device(tensor, self.state.device) for tensor in batch)
        return Batch(self.unet.standardise(latents), category_ids)

    def _save(self) -> None:
        obsolete, self.obsolete = self.obsolete, []
        if not self.group.first:
            return
        self.store.save(
            Checkpoint(
                step=self.step,
                tensors=self.state.tensors(),
                identity=self.identity | self.precision,
                log=self.log,
                pending=self.pending,
                finished=self.finished,
                total=self.total,
                best=asdict(self.best) if self.config.monitored else None,
                start=self.start,
                processes=self.group.size,
            ),
            keep=self.config.keep_checkpoints,
            obsolete=obsolete,
        )

    def _resume(self, checkpoint: Checkpoint) -> None:
        self.total = checkpoint.total or self.total
        self.state.restore(checkpoint.tensors, checkpoint.step)
        self.step, self.finished = checkpoint.step, checkpoint.finished
        self.pending.extend(checkpoint.pending)
        if checkpoint.best is not None:
            self.best = Selection(**checkpoint.best)
        if not self.finished:
            warn_of_other_machine(checkpoint, self.precision, self.group.size)
        done = ": finished, there is nothing left to train" if self.finished else ""
        logger.info("resuming at step %d of %d%s", self.step, self.total, done)

    def _result(self) -> DeCoDiffUNet:
        self.state.ema.copy_to(self.unet.parameters())
        latest = self.store.latest() if self.config.weights == "best" else None
        if latest is not None:
            best = self.store.best(latest)
            logger.info("the best network by %s is that of step %d, %.5g",
                        self.config.monitor, best.step, self.best.value)  # fmt: skip
            load_average(self.unet, best.tensors)
        return self.unet.eval()
