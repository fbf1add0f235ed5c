"""Prefetching: items are read in threads while the caller computes."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

READERS = 4
AHEAD = 32  # images

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(
    read: Callable[[Item], Result],
    items: Iterable[Item],
    ahead: int = AHEAD,
    workers: int | None = None,
) -> Generator[Result, None, None]:
    """Yield ``read(item)`` in the order of the items, computed in threads in advance.

    An exception of ``read`` is raised at the position of its item.

    Args:
        read: Called once per item, from several threads.
        items: Arguments of ``read``.
        ahead: Number of items that are read in advance.
        workers: Threads; None for one per core, at most `READERS`.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers or min(READERS, os.cpu_count() or 1)) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
