"""What an optimiser step changes: weights, their moving average, the optimiser's moments."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel

from decodiff_pipeline.deco.memory import keep_freed_memory
from decodiff_pipeline.deco.precision import resolve_bfloat16

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from decodiff_pipeline.deco.unet import DeCoDiffUNet
    from decodiff_pipeline.training.config import TrainingConfig


class TrainingState:
    """A network with its optimiser and the moving average of its weights.

    Args:
        unet: The network; moved to the device that training runs on.
        config: How to train.
    """

    def __init__(self, unet: DeCoDiffUNet, config: TrainingConfig) -> None:
        self.unet = unet
        # Without its precision: Accelerate has one for the whole process, an ablation several.
        self.device: torch.device = Accelerator().device
        self.bfloat16 = resolve_bfloat16(config.bfloat16, self.device)
        self.optimizer = torch.optim.AdamW(
            unet.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        unet.to(self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
            if self.bfloat16:
                unet.use_plain_attention()
        self.decay = config.ema_decay
        # Infinity clips nothing, but the norm is needed all the same, to see whether it is finite.
        self.clip = config.gradient_clip or math.inf
        self.ema = self._average()

    def autocast(self) -> torch.autocast:
        """Within the block the network computes in the precision that was configured."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    def apply_gradients(self, rate: float) -> float:
        """One optimiser step with the summed gradients, unless they are not finite.

        Args:
            rate: Learning rate.

        Returns:
            Norm of the gradient before clipping. Where it is not finite nothing was changed.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.unet.parameters(), self.clip).item()
        if math.isfinite(norm):
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.ema.step(self.unet.parameters())
        return norm

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the network has the moving average of its weights."""
        parameters = list(self.unet.parameters())
        self.ema.store(parameters)
        self.ema.copy_to(parameters)
        try:
            yield
        finally:
            self.ema.restore(parameters)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of it by name: ``unet.…``, ``ema.…`` and ``optimizer.…``; not copies."""
        names = [name for name, _ in self.unet.named_parameters()]
        tensors = {f"unet.{name}": tensor for name, tensor in self.unet.state_dict().items()}
        for name, average in zip(names, self.ema.shadow_params, strict=True):
            tensors[f"ema.{name}"] = average
        for name, parameter in self.unet.named_parameters():
            for key, tensor in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{name}.{key}"] = tensor
        return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor], step: int) -> None:
        """Take the place of the state after some step.

        Args:
            tensors: As :meth:`tensors` gave them; they are copied.
            step: Optimiser steps done.
        """
        groups: dict[str, dict[str, torch.Tensor]] = {"unet": {}, "ema": {}, "optimizer": {}}
        for full_name, tensor in tensors.items():
            kind, name = full_name.split(".", 1)
            groups[kind][name] = tensor
        self.unet.load_state_dict(groups["unet"])
        names = [name for name, _ in self.unet.named_parameters()]
        self.ema = self._average()
        self.ema.shadow_params = [groups["ema"][name].clone().to(self.device) for name in names]
        self.ema.optimization_step = step
        self.optimizer.zero_grad()
        self.optimizer.state.clear()
        parameters = dict(self.unet.named_parameters())
        for name, tensor in groups["optimizer"].items():
            parameter_name, key = name.rsplit(".", 1)
            state = self.optimizer.state[parameters[parameter_name]]
            state[key] = tensor.clone().to(self.device)

    def _average(self) -> EMAModel:
        return EMAModel(self.unet.parameters(), decay=self.decay, foreach=True)


def load_average(unet: DeCoDiffUNet, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give a network the moving average of the weights in a checkpoint.

    Args:
        unet: The network.
        tensors: The checkpoint's, as :meth:`TrainingState.tensors` gave them.
    """
    prefix = "ema."
    average = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    unet.load_state_dict(unet.state_dict() | average)
