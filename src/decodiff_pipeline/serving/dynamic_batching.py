"""Dynamic batching: computes the concurrent requests of several threads together."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Job = TypeVar("Job")
Result = TypeVar("Result")


class DynamicBatcher(Generic[Job, Result]):
    """Passes the jobs of several threads to one function, in batches.

    A job never waits for further jobs: those that arrive during a computation form the next batch.
    On a CPU a batch of four images takes half the time of four single images.

    One dedicated thread computes, because glibc keeps freed memory per thread: with several
    computing threads the process would grow by a working set for each.

    Args:
        most: Largest total size of a batch; a larger job is a batch of its own.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Job]], Sequence[Result]],
        size: Callable[[Job], int],
        most: int,
    ) -> None:
        self._compute, self._size, self._max_size = compute, size, most
        self._queue: list[tuple[Job, Future[Result]]] = []
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1)

    def __call__(self, job: Job) -> Result:
        """Wait for the result of a job; raises the exception of its batch."""
        future: Future[Result] = Future()
        with self._lock:
            self._queue.append((job, future))
        self._thread.submit(self._compute_batch)
        return future.result()

    def _compute_batch(self) -> None:
        with self._lock:
            if not self._queue:
                return  # the job was part of an earlier batch
            batch = [self._queue.pop(0)]
            total = self._size(batch[0][0])
            while self._queue and total + self._size(self._queue[0][0]) <= self._max_size:
                batch.append(self._queue.pop(0))
                total += self._size(batch[-1][0])
        try:
            results = self._compute([job for job, _ in batch])
        except BaseException as error:  # raised in every waiting thread
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
