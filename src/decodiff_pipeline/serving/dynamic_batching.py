"""What several threads ask for at the same time, computed in one go."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Job = TypeVar("Job")
Result = TypeVar("Result")


class DynamicBatcher(Generic[Job, Result]):
    """Hands jobs of several threads to one function, several at once.

    Nobody waits for company: while some are computed, others gather, and are taken next. On a
    processor four images in one go take half the time of one by one.

    All computing is done by one thread of its own: glibc keeps freed memory for the thread that
    asked for it, so that with each thread that computes the process grows by a working set.

    Args:
        compute: Results of jobs, in their order.
        size: Of a job.
        most: Largest total size computed at once; a larger job goes alone.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Job]], Sequence[Result]],
        size: Callable[[Job], int],
        most: int,
    ) -> None:
        self._compute, self._size, self._most = compute, size, most
        self._waiting: list[tuple[Job, Future[Result]]] = []
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1)

    def __call__(self, job: Job) -> Result:
        """The result of a job; raises what the computation of its batch raises."""
        mine: Future[Result] = Future()
        with self._lock:
            self._waiting.append((job, mine))
        self._thread.submit(self._compute_some)
        return mine.result()

    def _compute_some(self) -> None:
        with self._lock:
            if not self._waiting:
                return  # taken with an earlier job
            taken = [self._waiting.pop(0)]
            total = self._size(taken[0][0])
            while self._waiting and total + self._size(self._waiting[0][0]) <= self._most:
                taken.append(self._waiting.pop(0))
                total += self._size(taken[-1][0])
        try:
            results = self._compute([job for job, _ in taken])
        except BaseException as error:  # each of the threads has to know
            for _, future in taken:
                future.set_exception(error)
            return
        for (_, future), result in zip(taken, results, strict=True):
            future.set_result(result)
