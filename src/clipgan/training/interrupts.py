"""Defers Ctrl-C and SIGTERM to the end of a training step, so that a checkpoint can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_DEFERRED = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Set when the user or the system asked the process to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def raise_if_set(self) -> None:
        """KeyboardInterrupt for Ctrl-C, SystemExit with the shell's code for SIGTERM."""
        if self.signal is signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise SystemExit(128 + self.signal)


@contextmanager
def defer_interrupts() -> Iterator[StopRequest]:
    """Record SIGINT and SIGTERM instead of acting on them; a second Ctrl-C acts at once.

    A second SIGTERM does not, because an ending run sends one and the kernel another when DVC dies.

    Only a process's main thread can take signals: in another one nothing changes, and an
    interrupt acts at once.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def record(number: int, _frame: FrameType | None) -> None:
        repeated = request.signal is not None and number == signal.SIGINT
        request.signal = request.signal or signal.Signals(number)
        if repeated:
            request.raise_if_set()

    previous = {number: signal.signal(number, record) for number in _DEFERRED}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
