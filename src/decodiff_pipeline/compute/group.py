"""The processes that compute together, as one of them sees it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

# A process that dies is noticed by the launcher, not by waiting for it.
TIMEOUT = timedelta(hours=6)


@dataclass(frozen=True)
class Group:
    """Some processes with numbers 0…size-1.

    Every process must make the same calls in the same order. Values are passed as JSON, which is
    exact for floats; tuples come back as lists.
    """

    rank: int = 0  # number of this process
    size: int = 1  # number of processes

    @property
    def first(self) -> bool:
        """Whether this process writes the files and talks to the user."""
        return self.rank == 0

    def broadcast(self, value: Any = None) -> Any:
        """What process 0 gives; the argument of the others is ignored."""
        return self.gather(value if self.first else None)[0]

    def gather(self, value: Any) -> list[Any]:
        """What each process gives, in the order of their ranks, on all of them."""
        if self.size == 1:
            return [value]
        import torch
        from torch import distributed

        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.long) for _ in range(self.size)]
        distributed.all_gather(lengths, torch.tensor([len(content)]))
        padded = torch.zeros(int(max(lengths)), dtype=torch.uint8)
        padded[: len(content)] = content
        parts = [torch.zeros_like(padded) for _ in range(self.size)]
        distributed.all_gather(parts, padded)
        return [
            json.loads(part[: int(length)].numpy().tobytes())
            for part, length in zip(parts, lengths, strict=True)
        ]

    def concatenated(self, own: torch.Tensor, count: int) -> torch.Tensor:
        """The parts of a tensor that each process has of ``count`` rows, as :meth:`part` says.

        Args:
            own: The part of this process, with the same shape behind the first dimension and the
                same device on all; its rows beyond the part are not looked at.
        """
        if self.size == 1:
            return own
        import torch

        parts = [Group(rank, self.size).part(count) for rank in range(self.size)]
        lengths = [part.stop - part.start for part in parts]
        padded = own.new_zeros(max(lengths), *own.shape[1:])
        padded[: lengths[self.rank]] = own[: lengths[self.rank]]
        every = self.gather_tensor(padded)
        return torch.cat([each[:length] for each, length in zip(every, lengths, strict=True)])

    def gather_tensor(self, own: torch.Tensor) -> list[torch.Tensor]:
        """A tensor of one shape, dtype and device from each process, by rank."""
        if self.size == 1:
            return [own]
        import torch
        from torch import distributed

        every = [torch.empty_like(own) for _ in range(self.size)]
        distributed.all_gather(every, own)
        return every

    def barrier(self) -> None:
        """Wait until every process has come here."""
        self.gather(None)

    def part(self, count: int) -> slice:
        """The part of some items that is this process's: in order, as even as possible."""
        start, stop = (number * count // self.size for number in (self.rank, self.rank + 1))
        return slice(start, stop)

    def shards(self, count: int, batch: int, size: int) -> list[tuple[int, slice]]:
        """Numbers and items of the shards that this process writes.

        Each process has as many batches, and a batch holds the same items for any number of
        processes: what is computed of an item may depend on its batch in the last bit.

        Args:
            count: Items of all processes.
            batch: Items of a batch.
            size: Most items of a shard.
        """
        batch = min(batch, size)
        number, found = 0, []
        for rank in range(self.size):
            own = Group(rank, self.size).part(-(-count // batch))
            stop = min(own.stop * batch, count)
            for start in range(own.start * batch, stop, size // batch * batch):
                if rank == self.rank:
                    found.append((number, slice(start, min(start + size // batch * batch, stop))))
                number += 1
        return found


ALONE = Group()
_current: list[Group] = []


def current_group() -> Group | None:
    """The group that this process has joined, if any."""
    return _current[-1] if _current else None


@contextmanager
def joined() -> Iterator[Group]:
    """Join the group that the environment names, as a launcher has set it (RANK, WORLD_SIZE…)."""
    import torch
    from torch import distributed

    # The tensors of the GPU through nccl; what else is said, through gloo.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=TIMEOUT)
    _current.append(Group(distributed.get_rank(), distributed.get_world_size()))
    yield _current[-1]
    # Not after an error: the others may never come.
    _current.pop()
    distributed.destroy_process_group()
