"""Muon: momentum whose updates are orthogonalised, for weights of two and more dimensions.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). The update is
scaled so that its root mean square is about that of AdamW (Liu et al., "Muon is scalable for LLM
training", 2025), which lets both share one learning rate.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch

from decodiff_pipeline.compute.group import ALONE, Group

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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
        precision: Dtype of the matrix products; state and weights keep the weights' dtype.
        processes: The processes with the same weights and gradients. Each orthogonalises some of
            the matrices for all of them.

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
        processes: Group = ALONE,
    ) -> None:
        self.precision, self.processes = precision, processes
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.ndim < 2:  # noqa: PLR2004
                    raise ValueError(f"Muon takes no weight of shape {tuple(weight.shape)}.")

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Updates every weight that has a gradient."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            updates = self._orthogonalised([self._nesterov(weight, group) for weight in weights])
            for weight, update in zip(weights, updates, strict=True):
                scale = group["lr"] * RMS_OF_ADAMW * max(update.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update.view(weight.shape), alpha=-scale)

    def _nesterov(self, weight: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
        """The Nesterov momentum of a weight, as a matrix."""
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None  # noqa: S101
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(state["momentum"], group["momentum"]).flatten(1)

    def _orthogonalised(self, matrices: list[torch.Tensor]) -> list[torch.Tensor]:
        """Orthogonalise the matrices, divided among the processes; in their order."""
        shares = divided([matrix.shape for matrix in matrices], self.processes.size)
        by_shape: dict[torch.Size, list[int]] = defaultdict(list)
        for number in shares[self.processes.rank]:
            by_shape[matrices[number].shape].append(number)
        done: dict[int, torch.Tensor] = {}
        for numbers in by_shape.values():
            batch = torch.stack([matrices[number] for number in numbers])
            done |= zip(numbers, orthogonalise(batch, self.precision), strict=True)
        if self.processes.size > 1:
            self._exchange(done, matrices, shares)
        return [done[number] for number in range(len(matrices))]

    def _exchange(
        self, done: dict[int, torch.Tensor], matrices: list[torch.Tensor], shares: list[list[int]]
    ) -> None:
        """Add the matrices of the other processes to ``done``."""
        largest = max(sum(matrices[number].numel() for number in share) for share in shares)
        # The products have this precision, so no accuracy is lost.
        flat = matrices[0].new_zeros(largest, dtype=self.precision)
        for number, place in _places(shares[self.processes.rank], matrices):
            flat[place] = done[number].flatten().to(self.precision)
        for share, part in zip(shares, self.processes.gather_tensor(flat), strict=True):
            for number, place in _places(share, matrices):
                done[number] = part[place].view_as(matrices[number]).to(matrices[number].dtype)


def divided(shapes: Sequence[Sequence[int]], processes: int) -> list[list[int]]:
    """Divide matrices among processes by computing time, greedily.

    Returns:
        For each process the indices of its matrices, ascending.
    """
    costs = [max(shape) * min(shape) ** 2 for shape in shapes]
    shares: list[list[int]] = [[] for _ in range(processes)]
    loads = [0] * processes
    for number in sorted(range(len(shapes)), key=lambda number: -costs[number]):
        least = loads.index(min(loads))
        shares[least].append(number)
        loads[least] += costs[number]
    return [sorted(share) for share in shares]


def _places(share: list[int], matrices: list[torch.Tensor]) -> Iterator[tuple[int, slice]]:
    """Index of each matrix of a share, and its slice of their flat concatenation."""
    start = 0
    for number in share:
        yield number, slice(start, start + matrices[number].numel())
        start += matrices[number].numel()


def orthogonalise(matrices: torch.Tensor, precision: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Moves all singular values of each matrix towards 1 (to about 0.7-1.2).

    Args:
        matrices: Float ``(N, rows, columns)``.
        precision: Dtype of the products. Rounding in bfloat16 is below the iteration's error.

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
