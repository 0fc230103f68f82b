"""Ctrl-C while torch is imported."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["held_interrupts"]


@contextmanager
def held_interrupts() -> Iterator[None]:
    """While it lasts, Ctrl-C waits; it comes at the end.

    torch registers C++ types as it is imported, and aborts the process if an
    exception is raised in the middle of that.
    """
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread is ever interrupted.
        yield
        return
    came = False

    def hold(_signal: int, _frame: FrameType | None) -> None:
        nonlocal came
        came = True

    before: Any = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)
