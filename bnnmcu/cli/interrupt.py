"""Ctrl-C in the middle of a run: once for an orderly end, twice for one at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from bnnmcu.cli.output import INTERRUPTED

__all__ = ["orderly_interrupts"]


@contextmanager
def orderly_interrupts(
    asked: Callable[[], object], at_once: Callable[[], object]
) -> Iterator[None]:
    """While it lasts, the first Ctrl-C raises KeyboardInterrupt and the second ends the process.

    The orderly end waits for threads that cannot be stopped, which may take
    minutes; somebody who presses the keys again is not to wait that long.

    Args:
        asked: is called at the first one, before the exception.
        at_once: is called at the second one, before the process ends.
    """
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread is ever interrupted.
        yield
        return
    times = 0

    def interrupted(_signal: int, _frame: FrameType | None) -> None:
        nonlocal times
        times += 1
        if times == 1:
            asked()
            raise KeyboardInterrupt
        try:
            at_once()
        finally:
            os._exit(INTERRUPTED)

    before: Any = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
