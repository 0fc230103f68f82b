"""Ctrl-C while foreign code runs in this process: late, but neither lost nor half-way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["interrupts_deferred"]


@contextmanager
def interrupts_deferred(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` at Ctrl-C, and hand it to the handler before when the block has ended.

    An exception that a signal handler raises inside a ctypes callback is printed
    and forgotten, and leaves the emulated access half done; so nothing is raised
    until the block is left.  On other threads than the main one, which never
    handle signals, and where Ctrl-C is ignored or ends the process, this does
    nothing.

    Args:
        stop: makes the foreign code return soon; called from the signal handler,
            perhaps within a callback.

    Raises:
        KeyboardInterrupt: on leaving, if there was a Ctrl-C and Python's own
            handler was in place.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    caught = False

    def remember(_signal: int, _frame: FrameType | None) -> None:
        nonlocal caught
        caught = True
        stop()

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if caught:
            signal.raise_signal(signal.SIGINT)
