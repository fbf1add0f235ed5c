"""The state that an optimiser step changes: weights, their EMA, the optimiser's moments."""

from __future__ import annotations

import math
import warnings
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from diffusers.training_utils import EMAModel
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.compute.group import ALONE, Group
from decodiff_pipeline.deco.device import compile_where_preferred, resolve_bfloat16, resolve_device
from decodiff_pipeline.deco.unet import DeCoDiffUNet, QuickDropout, build_unet
from decodiff_pipeline.errors import CheckpointError
from decodiff_pipeline.training.muon import Muon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from decodiff_pipeline.training.checkpoints import Checkpoint, CheckpointStore
    from decodiff_pipeline.training.config import TrainingConfig


class TrainingState:
    """A network with its optimiser and the exponential moving average (EMA) of its weights.

    Args:
        unet: The network; it is moved to the training device.
        group: The processes that train together, each on a part of every batch. All have the
            weights of the first, and equal ones after each step.
    """

    def __init__(self, unet: DeCoDiffUNet, config: TrainingConfig, group: Group = ALONE) -> None:
        self.unet, self.group = unet, group
        self.device = torch.device(resolve_device())
        self.loss_dtype = torch.float32 if self.device.type == "mps" else torch.float64
        self.bfloat16 = resolve_bfloat16(config.bfloat16, self.device)
        self.optimizers = new_optimizers(unet, config, bfloat16=self.bfloat16, group=group)
        unet.to(self.device)
        compile_where_preferred(unet)
        self.network = self._shared(unet)
        self.accumulation = config.accumulation
        if self.device.type == "cpu" and self.bfloat16:
            unet.use_plain_attention()
        self.decay = config.ema_decay
        # An infinite limit clips nothing; the norm is computed to check that it is finite.
        self.clip = config.gradient_clip or math.inf
        self.ema = self._new_ema()

    @property
    def is_waiting(self) -> bool:
        """Whether losses are read after every step, which on a GPU would wait for the device."""
        return self.device.type == "cpu"

    def autocast(self) -> torch.autocast:
        """Context in which the network computes in the configured precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    def add_gradients(
        self, loss_of: Callable[[nn.Module, slice], torch.Tensor], count: int, *, last: bool
    ) -> torch.Tensor:
        """Add the gradients of this process's part of a batch.

        Args:
            loss_of: Computes the mean loss over a part of the batch with a network.
            count: Number of images in the batch.
            last: Whether the optimiser's step follows.

        Returns:
            This process's part of the mean loss over the whole batch, float64 ().
        """
        part = self.group.part(count)
        weight = (part.stop - part.start) / count
        if not weight:  # fewer images than processes; the network takes no empty batch
            part = slice(0, 1)
        for module in self.unet.modules():
            if isinstance(module, QuickDropout) and self.group.size > 1:
                module.place = (part.start, count)
        with self._exchange(last):
            with self.autocast():
                loss = loss_of(self.network, part)
            # DistributedDataParallel averages the gradients over the processes.
            (loss * (weight * self.group.size) / self.accumulation).backward()
        return loss.detach().to(self.loss_dtype) * weight

    def _exchange(self, last: bool) -> AbstractContextManager[object]:
        if last or not isinstance(self.network, DistributedDataParallel):
            return nullcontext()
        return self.network.no_sync()

    def _shared(self, unet: DeCoDiffUNet) -> nn.Module:
        if self.group.size == 1:
            return unet
        # Of 1x1 convolutions in channels-last layout; the strides of axes of length 1 mean nothing.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        # Queries and keys of the one-token cross-attention have no gradient.
        return DistributedDataParallel(unet, find_unused_parameters=True)

    def apply_gradients(self, rate: float) -> torch.Tensor:
        """Take an optimiser step with the accumulated gradients.

        Returns:
            Norm of the gradient before clipping, float (). If it is not finite, weights are
            unchanged on the CPU; on a GPU, where the norm is not read, all weights become NaN.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.unet.parameters(), self.clip)
        if not self.is_waiting or norm.isfinite():
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate
                optimizer.step()
                optimizer.zero_grad()
            self.ema.step(self.unet.parameters())
        return norm

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Context in which the network has its averaged (EMA) weights."""
        parameters = list(self.unet.parameters())
        self.ema.store(parameters)
        self.ema.copy_to(parameters)
        try:
            yield
        finally:
            self.ema.restore(parameters)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors by name: ``unet.…``, ``ema.…`` and ``optimizer.…``; not copies."""
        names = [name for name, _ in self.unet.named_parameters()]
        tensors = {f"unet.{name}": tensor for name, tensor in self.unet.state_dict().items()}
        for name, average in zip(names, self.ema.shadow_params, strict=True):
            tensors[f"ema.{name}"] = average
        moments: dict[torch.Tensor, dict[str, torch.Tensor]] = {}
        for optimizer in self.optimizers:
            moments |= optimizer.state
        for name, weight in self.unet.named_parameters():
            for key, tensor in moments.get(weight, {}).items():
                tensors[f"optimizer.{name}.{key}"] = tensor
        return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor], step: int) -> None:
        """Set the state after a step.

        Args:
            tensors: As :meth:`tensors` returns them; they are copied.
        """
        groups: dict[str, dict[str, torch.Tensor]] = {"unet": {}, "ema": {}, "optimizer": {}}
        for full_name, tensor in tensors.items():
            kind, name = full_name.split(".", 1)
            groups[kind][name] = tensor
        self.unet.load_state_dict(groups["unet"])
        names = [name for name, _ in self.unet.named_parameters()]
        self.ema = self._new_ema()
        self.ema.shadow_params = [groups["ema"][name].clone().to(self.device) for name in names]
        self.ema.optimization_step = step
        owners: dict[torch.Tensor, torch.optim.Optimizer] = {}
        for optimizer in self.optimizers:
            optimizer.zero_grad()
            optimizer.state.clear()
            for group in optimizer.param_groups:
                owners |= dict.fromkeys(group["params"], optimizer)
        weights = dict(self.unet.named_parameters())
        for name, tensor in groups["optimizer"].items():
            weight_name, key = name.rsplit(".", 1)
            weight = weights[weight_name]
            owners[weight].state[weight][key] = tensor.clone().to(self.device)

    def _new_ema(self) -> EMAModel:
        return EMAModel(self.unet.parameters(), decay=self.decay, foreach=True)


def new_optimizers(
    unet: nn.Module, config: TrainingConfig, *, bfloat16: bool, group: Group = ALONE
) -> list[torch.optim.Optimizer]:
    """AdamW for all weights; with ``optimizer: muon`` Muon for those of two or more dimensions.

    Embeddings are left to AdamW, since their rows are independent vectors.
    """
    rate, decay = config.learning_rate, config.weight_decay
    embeddings = {module.weight for module in unet.modules() if isinstance(module, nn.Embedding)}
    muon: list[nn.Parameter] = []
    adamw: list[nn.Parameter] = []
    for weight in unet.parameters():
        matrix = weight.ndim > 1 and weight not in embeddings
        (muon if matrix and config.optimizer == "muon" else adamw).append(weight)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(adamw, lr=rate, weight_decay=decay, fused=True)
    ]
    if muon:
        precision = torch.bfloat16 if bfloat16 else torch.float32
        optimizers.append(
            Muon(muon, lr=rate, weight_decay=decay, precision=precision, processes=group)
        )
    return optimizers


def load_average(unet: DeCoDiffUNet, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load the averaged (EMA) weights of a checkpoint into a network."""
    prefix = "ema."
    average = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    unet.load_state_dict(unet.state_dict() | average)


def trained_network(store: CheckpointStore) -> DeCoDiffUNet:
    """The network of a finished run, with its averaged (EMA) weights, in eval mode.

    It is the last or the best network, as the run's ``training.weights`` says.

    Raises:
        CheckpointError: There is no finished run, or its checkpoint is damaged.
    """
    checkpoint = store.latest()
    if checkpoint is None or not checkpoint.finished:
        msg = f"{store.path} holds no finished training; run {kedro_run('training')}"
        raise CheckpointError(msg)
    if checkpoint.identity.get("weights") == "best":
        checkpoint = store.best(checkpoint)
    return averaged_network(checkpoint)


def averaged_network(checkpoint: Checkpoint) -> DeCoDiffUNet:
    """The network of a checkpoint, with its averaged (EMA) weights, in eval mode."""
    identity: dict[str, Any] = checkpoint.identity
    unet = build_unet(
        identity["preset"],
        identity["categories"],
        identity["latent_shape"][-1],
        identity["latent_shape"][0],
        identity["dropout"],
    )
    unet.register_to_config(**identity["channel_statistics"])
    load_average(unet, checkpoint.tensors)
    return unet.eval()
