"""The training loop: optimiser, moving average, checkpoints, log."""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from tqdm import tqdm

from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.errors import CheckpointError, ModelError
from decodiff_pipeline.training.batches import Batch, LatentBatches, generator
from decodiff_pipeline.training.checkpoints import Checkpoint, CheckpointStore
from decodiff_pipeline.training.objective import deviation_loss, held_out_loss
from decodiff_pipeline.training.schedule import learning_rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decodiff_pipeline.deco.unet import DeCoDiffUNet
    from decodiff_pipeline.training.config import TrainingConfig

logger = logging.getLogger(__name__)


@dataclass
class TrainingRun:
    """A network being trained. :meth:`run` trains it to the end, wherever it stands.

    Attributes:
        unet: The network with random weights; it is trained in place.
        batches: What it is trained on.
        held_out: Batches it is judged by while it trains; may be empty.
        config: How.
        store: Where its state is kept.
        identity: What decides the outcome; a checkpoint with another identity is not resumed.
        log: Rows of the training log, filled while it runs.
    """

    unet: DeCoDiffUNet
    batches: LatentBatches
    held_out: Sequence[Batch]
    config: TrainingConfig
    store: CheckpointStore
    identity: dict[str, Any]
    log: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = self.config
        per_epoch = math.ceil(len(self.batches) / config.accumulation)
        self.total = config.steps or (config.epochs or 1) * per_epoch
        self.step = 0
        self.pending: list[float] = []
        self.obsolete: list[int] = []
        self.accelerator = Accelerator(mixed_precision="bf16" if config.bfloat16 else "no")
        self.scheduler = DeCoDiffScheduler()
        self.optimizer = torch.optim.AdamW(
            self.unet.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.unet.to(self.accelerator.device)
        if self.accelerator.device.type == "cpu":
            self.unet.use_plain_attention()
        self.ema = EMAModel(self.unet.parameters(), decay=config.ema_decay, foreach=True)

    def run(self) -> DeCoDiffUNet:
        """Train from the newest checkpoint, or from scratch, to the last step.

        Returns:
            The network with the moving average of its weights.

        Raises:
            CheckpointError: A checkpoint is damaged, cannot be written, or belongs to an
                unfinished run with other parameters.
            ModelError: The loss is no longer a number.
        """
        self._resume()
        threads = torch.get_num_threads()
        torch.set_num_threads(self.config.threads or threads)
        try:
            self._train()
        finally:
            torch.set_num_threads(threads)
        self.ema.copy_to(self.unet.parameters())
        return self.unet.eval()

    def _train(self) -> None:
        self.unet.train()
        started, images = time.perf_counter(), 0
        bar = tqdm(total=self.total, initial=self.step, desc="training", unit="steps",
                   disable=not self.config.progress_bar)  # fmt: skip
        with bar:
            while self.step < self.total:
                loss, seen = self._train_step()
                self.pending.append(loss)
                self.step += 1
                images += seen
                speed = images / (time.perf_counter() - started)
                bar.set_postfix(loss=f"{loss:.4f}", images_per_s=f"{speed:.1f}")
                bar.update()
                if self._due(self.config.log_every) or self._due(self.config.validate_every):
                    self._log_row(speed)
                if self._due(self.config.checkpoint_every):
                    self._save()

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.total

    def _train_step(self) -> tuple[float, int]:
        rate = learning_rate(
            self.step,
            self.total,
            peak=self.config.learning_rate,
            warmup=self.config.warmup,
            final=self.config.final_learning_rate,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        mean, seen = 0.0, 0
        for part in range(self.config.accumulation):
            number = self.step * self.config.accumulation + part
            random = generator("corruption", self.config.seed, number)
            # Dropout draws from torch's global generator, on whatever device it runs.
            torch.manual_seed(random.initial_seed())
            batch = self._prepared(self.batches.batch(number))
            with self.accelerator.autocast():
                loss = deviation_loss(
                    self.unet, self.scheduler, batch, self.config.corruption, random
                )
            (loss / self.config.accumulation).backward()
            mean += loss.item() / self.config.accumulation
            seen += len(batch.latents)
        if not math.isfinite(mean):
            good = max(self.store.steps(), default=0)
            msg = (
                f"the training loss is {mean} at step {self.step + 1}; the last good checkpoint is "
                f"that of step {good}; lower training.learning_rate (now "
                f"{self.config.learning_rate}) and set training.resume to never"
            )
            raise ModelError(msg)
        if self.config.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.unet.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.step(self.unet.parameters())
        return mean, seen

    def _log_row(self, speed: float) -> None:
        loss = sum(self.pending) / len(self.pending)
        self.pending.clear()
        row = {
            "step": self.step,
            "epoch": self.step * self.config.accumulation / len(self.batches),
            "loss": loss,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "images_per_second": speed,
        }
        if self.held_out and self._due(self.config.validate_every):
            row["held_out_loss"] = self._held_out_loss()
        self.log.append(row)

    def _held_out_loss(self) -> float:
        parameters = list(self.unet.parameters())
        self.ema.store(parameters)
        self.ema.copy_to(parameters)
        batches = [self._prepared(batch) for batch in self.held_out]
        with self.accelerator.autocast():
            loss = held_out_loss(self.unet, self.scheduler, batches, self.config.corruption)
        self.ema.restore(parameters)
        return loss

    def _prepared(self, batch: Batch) -> Batch:
        latents, category_ids = (tensor.to(self.accelerator.device) for tensor in batch)
        return Batch(self.unet.standardise(latents), category_ids)

    def _save(self) -> None:
        names = [name for name, _ in self.unet.named_parameters()]
        tensors = {f"unet.{name}": tensor for name, tensor in self.unet.state_dict().items()}
        for name, average in zip(names, self.ema.shadow_params, strict=True):
            tensors[f"ema.{name}"] = average
        for name, parameter in self.unet.named_parameters():
            for key, tensor in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{name}.{key}"] = tensor
        self.store.save(
            Checkpoint(
                step=self.step,
                tensors={name: tensor.detach().contiguous() for name, tensor in tensors.items()},
                identity=self.identity,
                log=self.log,
                pending=self.pending,
                finished=self.step == self.total,
            ),
            keep=self.config.keep_checkpoints,
            obsolete=self.obsolete,
        )
        self.obsolete = []

    def _resume(self) -> None:
        self.store.tidy()
        if self.config.resume == "never":
            self.obsolete = self.store.steps()
            return
        checkpoint = self.store.latest()
        if checkpoint is None:
            return
        identity = json.loads(json.dumps(self.identity))
        if checkpoint.identity != identity:
            if checkpoint.finished:
                logger.info("the finished training here had other parameters: starting a new one")
                self.obsolete = self.store.steps()
                return
            msg = (
                f"{self.store.path} holds an unfinished run (step {checkpoint.step}) with other "
                f"parameters: {_differences(checkpoint.identity, identity)}; put them back to go "
                "on, or start over with --params training.resume=never"
            )
            raise CheckpointError(msg)
        logger.info("resuming at step %d of %d", checkpoint.step, self.total)
        self._restore(checkpoint)

    def _restore(self, checkpoint: Checkpoint) -> None:
        device = self.accelerator.device
        groups: dict[str, dict[str, torch.Tensor]] = {"unet": {}, "ema": {}, "optimizer": {}}
        for full_name, tensor in checkpoint.tensors.items():
            kind, name = full_name.split(".", 1)
            groups[kind][name] = tensor
        self.unet.load_state_dict(groups["unet"])
        names = [name for name, _ in self.unet.named_parameters()]
        self.ema.shadow_params = [groups["ema"][name].clone().to(device) for name in names]
        self.ema.optimization_step = checkpoint.step
        parameters = dict(self.unet.named_parameters())
        for name, tensor in groups["optimizer"].items():
            parameter_name, key = name.rsplit(".", 1)
            self.optimizer.state[parameters[parameter_name]][key] = tensor.clone().to(device)
        self.step = checkpoint.step
        self.log.extend(checkpoint.log)
        self.pending.extend(checkpoint.pending)


def _differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    return ", ".join(f"{key} was {old.get(key)} and is {new.get(key)}" for key in changed)
