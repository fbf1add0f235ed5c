"""Ends a run when the process is stopped: by Ctrl-C, SIGTERM, SIGHUP or sys.exit."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGHUP)
DEFERRED = (*STOPPING, signal.SIGINT)


class RunEnd:
    """Calls a function when the process is stopped, because Kedro then calls no hook."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._process = 0
        self._previous: dict[int, Any] = {}

    def watch(self) -> None:
        """Install the handlers; call it after importing MLflow, to run before its exit handlers."""
        self._process = os.getpid()
        atexit.register(self._end)
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                if signal.getsignal(number) != signal.SIG_IGN:  # ignored under nohup
                    self._previous[number] = signal.signal(number, self._on_signal)

    def is_own_process(self) -> bool:
        """Whether this is the process that called `watch`, not a forked worker."""
        return os.getpid() == self._process

    @contextmanager
    def undisturbed(self, *, exiting: bool) -> Iterator[None]:
        """Remove the handlers, and defer signals until the block ends.

        Args:
            exiting: The process is ending, so deferred signals are dropped.
        """
        atexit.unregister(self._end)
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        received: list[int] = []
        before = {
            number: signal.signal(number, lambda number, _: received.append(number))
            for number in DEFERRED
        }
        try:
            yield
        finally:
            for number, handler in (before | self._previous).items():
                signal.signal(number, handler)
            self._previous = {}
        if received and not exiting:
            os.kill(os.getpid(), received[0])

    def _on_signal(self, number: int, _frame: FrameType | None) -> NoReturn:
        if not self.is_own_process():  # a forked worker inherits the handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        # Unwinds the stack, so that nodes stop their children; the exit handler ends the run.
        raise SystemExit(128 + number)
