"""A process group: rank, size and collective operations of processes that share a stage."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

# Of collective operations. The launcher, not this timeout, ends the group when a process dies.
TIMEOUT = timedelta(hours=6)


@dataclass(frozen=True)
class Group:
    """A group of processes with ranks 0…size-1.

    All processes must make the same calls in the same order. Values are sent as JSON: floats are
    exact, tuples become lists.
    """

    rank: int = 0  # of this process
    size: int = 1  # number of processes

    @property
    def first(self) -> bool:
        """Whether this process has rank 0, which writes shared files and logs."""
        return self.rank == 0

    def broadcast(self, value: Any = None) -> Any:
        """The value of rank 0, on all processes; the arguments of the others are ignored."""
        return self.gather(value if self.first else None)[0]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes by rank, on all processes."""
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

    def concatenated(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        """Concatenate the rows of all processes, on all processes.

        Args:
            rows: The rows of :meth:`part`; further rows are ignored. Device and shape after the
                first dimension are the same on all processes.
            count: Number of rows of all processes.
        """
        if self.size == 1:
            return rows
        import torch

        parts = [Group(rank, self.size).part(count) for rank in range(self.size)]
        lengths = [part.stop - part.start for part in parts]
        padded = rows.new_zeros(max(lengths), *rows.shape[1:])
        padded[: lengths[self.rank]] = rows[: lengths[self.rank]]
        gathered = zip(self.gather_tensor(padded), lengths, strict=True)
        return torch.cat([tensor[:length] for tensor, length in gathered])

    def gather_tensor(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """The tensors of all processes by rank; shape, dtype and device must be equal."""
        if self.size == 1:
            return [tensor]
        import torch
        from torch import distributed

        tensors = [torch.empty_like(tensor) for _ in range(self.size)]
        distributed.all_gather(tensors, tensor)
        return tensors

    def barrier(self) -> None:
        """Wait for all processes."""
        self.gather(None)

    def part(self, count: int) -> slice:
        """The items of this process: consecutive, equally many for each process to within one."""
        start, stop = (rank * count // self.size for rank in (self.rank, self.rank + 1))
        return slice(start, stop)

    def shards(self, count: int, batch: int, size: int) -> list[tuple[int, slice]]:
        """Numbers and items of the shards that this process writes.

        Batches are divided evenly, and a batch has the same items for any number of processes,
        because the last bit of a result may depend on the other items of the batch.

        Args:
            count: Number of items of all processes.
            batch: Items per batch.
            size: Maximum items per shard.
        """
        batch = min(batch, size)
        step = size // batch * batch
        number, shards = 0, []
        for rank in range(self.size):
            batches = Group(rank, self.size).part(-(-count // batch))
            stop = min(batches.stop * batch, count)
            for start in range(batches.start * batch, stop, step):
                if rank == self.rank:
                    shards.append((number, slice(start, min(start + step, stop))))
                number += 1
        return shards


ALONE = Group()
_current: list[Group] = []


def current_group() -> Group | None:
    """The group that this process joined, if any."""
    return _current[-1] if _current else None


@contextmanager
def joined() -> Iterator[Group]:
    """Join the group of the environment variables that a launcher set (RANK, WORLD_SIZE, …)."""
    import torch
    from torch import distributed

    # nccl transfers tensors on the GPU, gloo those on the CPU.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=TIMEOUT)
    _current.append(Group(distributed.get_rank(), distributed.get_world_size()))
    yield _current[-1]
    # Not after an error: it would wait for processes that may have failed.
    _current.pop()
    distributed.destroy_process_group()
