"""How a process is stopped from outside: Ctrl-C, SIGTERM, a terminal that closes, sys.exit."""

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
DISTURBING = (*STOPPING, signal.SIGINT)


class RunEnd:
    """Sees to it that a run ends as something, for Kedro calls no hook in these cases."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._process = 0
        self._previous: dict[int, Any] = {}

    def watch(self) -> None:
        """From now on; call it after MLflow is imported, to run before its exit handlers."""
        self._process = os.getpid()
        atexit.register(self._end)
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                    self._previous[number] = signal.signal(number, self._on_signal)

    def is_own_process(self) -> bool:
        """Whether this is the process that watches, not a forked worker of it."""
        return os.getpid() == self._process

    @contextmanager
    def undisturbed(self, *, exiting: bool) -> Iterator[None]:
        """Stop watching, and let the block end before another signal is heard.

        Args:
            exiting: The process ends anyway, so signals are forgotten then.
        """
        atexit.unregister(self._end)
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        heard: list[int] = []
        before = {
            number: signal.signal(number, lambda number, _: heard.append(number))
            for number in DISTURBING
        }
        try:
            yield
        finally:
            for number, handler in (before | self._previous).items():
                signal.signal(number, handler)
            self._previous = {}
        if heard and not exiting:
            os.kill(os.getpid(), heard[0])

    def _on_signal(self, number: int, _frame: FrameType | None) -> NoReturn:
        if not self.is_own_process():  # a forked worker inherits the handler, not the run
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        # Unwinds the stack, so that nodes stop their children; the exit handler ends the run.
        raise SystemExit(128 + number)
