"""Workers of this machine for a scheduler elsewhere: what ``bnnmcu worker`` runs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from bnnmcu.attack.interrupts import held_interrupts
from bnnmcu.cluster.engine import BOARDS_A_PROCESS, CONNECT
from bnnmcu.cluster.farm import FarmBoard
from bnnmcu.cluster.settings import ClusterSettings
from bnnmcu.errors import ClusterError, MissingDependencyError

__all__ = ["serve"]

_LOOPBACK = "127.0.0.1"


def serve(
    settings: ClusterSettings,
    *,
    workers: int | None,
    boards: Sequence[FarmBoard],
    host: str | None,
    announce: Callable[[str], None],
) -> None:
    """Run worker processes until Ctrl-C or until the scheduler is gone.

    Args:
        workers: that craft; None for one on each core, or none where there are boards.
        boards: attached here.
        host: to listen on; None for loopback, or what leads to the scheduler with certificates.

    Raises:
        MissingDependencyError: Dask is not installed.
        ClusterError: there is no scheduler.
    """
    try:
        with held_interrupts():
            import distributed  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "a cluster needs Dask distributed", hint="pip install 'bnnmcu[cluster]'"
        ) from error
    count = workers if workers is not None else 0 if boards else os.cpu_count() or 1
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if host is None and settings.tls is None:
        host = _LOOPBACK
    try:
        asyncio.run(_served(settings, count, boards, host, announce))
    except (OSError, TimeoutError, RuntimeError) as error:
        raise ClusterError(
            f"no worker could start: {error}",
            where=settings.address,
            hint="is the scheduler there? dask scheduler --host 127.0.0.1 --port 8786",
        ) from error


async def _served(
    settings: ClusterSettings,
    count: int,
    boards: Sequence[FarmBoard],
    host: str | None,
    announce: Callable[[str], None],
) -> None:
    from distributed import Nanny

    from bnnmcu.cluster.workers import nanny_options, security_of

    groups = [
        tuple(boards[start : start + BOARDS_A_PROCESS])
        for start in range(0, len(boards), BOARDS_A_PROCESS)
    ]
    way: dict[str, Any] = (
        {"scheduler_ip": settings.address}
        if "://" in settings.address
        else {"scheduler_file": settings.address}
    )
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, asked.set)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bnnmcu-worker-"))
        nannies = []
        for craft, own in [(True, ())] * count + [(False, one) for one in groups]:
            options = nanny_options(
                craft=craft, boards=own, folder=folder, security=security_of(settings.tls)
            )
            nanny = Nanny(**way, **options, host=host, death_timeout=CONNECT)
            nannies.append(await stack.enter_async_context(nanny))
        asking = f", boards: {', '.join(one.name for one in boards)}" if boards else ""
        announce(f"{count} workers craft{asking}; Ctrl-C ends them")
        ended = [asyncio.ensure_future(one.finished()) for one in nannies]
        ended.append(asyncio.ensure_future(asked.wait()))
        await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        for one in ended:
            one.cancel()
    announce("ended" if asked.is_set() else "ended: the scheduler is gone")
