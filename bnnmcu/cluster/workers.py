"""Processes that do a cluster's work: some craft, others own boards."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distributed import WorkerPlugin
from distributed.security import Security

from bnnmcu import __version__
from bnnmcu.cluster.farm import FarmBoard
from bnnmcu.cluster.settings import BATCHES, BOARD, CRAFT, TLS_FILES
from bnnmcu.cluster.shelf import Shelf

__all__ = ["facts", "nanny_options", "security_of"]

_ROLES = ("client", "scheduler", "worker")


class _Uninterrupted(WorkerPlugin):
    """A plugin: Ctrl-C is for whoever started the workers, who then ends them."""

    name = "bnnmcu-uninterrupted"

    def setup(self, worker: Any) -> None:
        """Called by Dask in the worker process."""
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def teardown(self, worker: Any) -> None:
        """Nothing is left."""


def facts() -> dict[str, str]:
    """What must be alike for workers to make the same images; runs in a worker."""
    import platform

    import numpy as np

    try:
        import torch
    except ImportError:
        return {"bnnmcu": __version__, "torch": "none"}
    return {
        "bnnmcu": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
    }


def security_of(tls: Path | None) -> Any:
    """Dask's security settings for a folder of certificates; None without one."""
    if tls is None:
        return None
    ca, cert, key = (str(tls / name) for name in TLS_FILES)
    options = {f"tls_{role}_cert": cert for role in _ROLES}
    options |= {f"tls_{role}_key": key for role in _ROLES}
    return Security(tls_ca_file=ca, require_encryption=True, **options)


def nanny_options(
    *, craft: bool, boards: Sequence[FarmBoard], folder: str, security: Any
) -> dict[str, Any]:
    """Settings of one worker process: it crafts, or it owns boards."""
    resources: dict[str, float] = {CRAFT: 1.0} if craft else {}
    # Workers run in order what needs a resource: a batch that waited for one board's would hold
    # up all others, so it waits in a thread of its own.
    resources |= {BOARD + one.name: float(BATCHES) for one in boards}
    return {
        "nthreads": 1 if craft else BATCHES * max(1, len(boards)),
        "resources": resources,
        "plugins": (_Uninterrupted(), *((Shelf(tuple(boards)),) if boards else ())),
        # Its own, so that a campaign is never killed for another one's memory.
        "memory_limit": 0,
        "local_directory": folder,
        # What goes wrong comes back as an exception; what ends while others do is no error.
        "silence_logs": logging.CRITICAL,
        "security": security,
        # One thread for each worker: images are a matter of it.
        "env": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    }
