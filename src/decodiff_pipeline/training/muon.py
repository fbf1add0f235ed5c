"""Muon: momentum whose updates are orthogonalised, for weights of two and more dimensions.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). The update is
scaled so that its root mean square is about that of AdamW (Liu et al., "Muon is scalable for LLM
training", 2025), which lets both share one learning rate.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

# Coefficients of the quintic Newton-Schulz iteration, chosen by Jordan et al. for its slope at 0.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
RMS_OF_ADAMW = 0.2


class Muon(torch.optim.Optimizer):
    """Muon for matrices and convolutions, which it flattens to ``(out, in * height * width)``.

    ``torch.optim.Muon`` takes matrices alone and handles one at a time. Here all weights of one
    shape are orthogonalised in one batched product.

    Args:
        params: Weights of two or more dimensions.
        lr: Learning rate, in AdamW's unit.
        momentum: Decay of the running mean of gradients, 0 to 1; the update is Nesterov's.
        weight_decay: Decoupled, as AdamW's.
        precision: Of the matrix products; state and weights stay in the weights' dtype.

    Raises:
        ValueError: A weight has less than two dimensions.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        precision: torch.dtype = torch.bfloat16,
    ) -> None:
        self.precision = precision
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.ndim < 2:  # noqa: PLR2004
                    raise ValueError(f"Muon takes no weight of shape {tuple(weight.shape)}.")

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Updates every weight that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape[weight.shape].append((weight, weight.grad))
            for pairs in by_shape.values():
                self._update(pairs, group)

    def _update(
        self, pairs: list[tuple[torch.Tensor, torch.Tensor]], group: dict[str, Any]
    ) -> None:
        updates = []
        for weight, gradient in pairs:
            state = self.state[weight]
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            state["momentum"].lerp_(gradient, 1 - group["momentum"])
            nesterov = gradient.lerp(state["momentum"], group["momentum"])
            updates.append(nesterov.flatten(1))
        orthogonal = orthogonalise(torch.stack(updates), self.precision)
        scale = group["lr"] * RMS_OF_ADAMW * max(updates[0].shape) ** 0.5
        for (weight, _), update in zip(pairs, orthogonal, strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(update.view(weight.shape), alpha=-scale)


def orthogonalise(matrices: torch.Tensor, precision: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Moves all singular values of each matrix towards 1 (to about 0.7-1.2).

    Args:
        matrices: Float ``(N, rows, columns)``.
        precision: Of the products. Bfloat16's rounding is below what the iteration leaves open.

    Returns:
        The same shape and dtype.
    """
    a, b, c = QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.to(precision)
    x = x.mT.contiguous() if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT  # (N, r, r), r the shorter side
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
