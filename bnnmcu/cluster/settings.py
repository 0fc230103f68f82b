"""Which cluster: one of this machine's own, or one that is running; needs no Dask."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from bnnmcu.errors import UsageError

__all__ = ["BATCHES", "BOARD", "CRAFT", "LOCAL", "TLS_FILES", "ClusterSettings", "parse_cluster"]

#: The cluster that is started for one command, on this machine.
LOCAL = "local"
#: In a folder of certificates: who signs, who we are, and our key.
TLS_FILES = ("ca.pem", "cert.pem", "key.pem")
#: Names of resources that workers announce: one for crafting, one for each board.
CRAFT = "bnnmcu-craft"
BOARD = "bnnmcu-board-"
#: Batches that a board has at most, so that one waits while the other runs.
BATCHES = 2
_MOST_WORKERS = 1024
_ADDRESS = re.compile(r"(tcp|tls)://[^\s/]+:\d{1,5}")


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """Which cluster, and how it is reached.

    Attributes:
        address: ``local``, a scheduler's address, or the path of Dask's scheduler file.
        workers: processes that craft, of a local cluster.
        tls: folder with ``ca.pem``, ``cert.pem`` and ``key.pem``; None where there are none.
        dashboard: port of a local cluster's dashboard; 0 for any that is free.

    Raises:
        UsageError: settings that cannot be, or exclude each other.
    """

    address: str = LOCAL
    workers: int | None = None
    tls: Path | None = None
    dashboard: int = 0

    def __post_init__(self) -> None:
        if self.workers is not None:
            if not self.local:
                raise UsageError(
                    "a running cluster has the workers that it has",
                    where="--workers",
                    hint="start more with 'bnnmcu worker', or leave it out",
                )
            if not 1 <= self.workers <= _MOST_WORKERS:
                raise UsageError(
                    f"{self.workers} workers: use 1 to {_MOST_WORKERS}", where="--workers"
                )
        if not 0 <= self.dashboard <= 65535:
            raise UsageError(f"{self.dashboard} is no port", where="--dashboard")
        if self.tls is not None:
            if self.local:
                raise UsageError(
                    "a local cluster makes its own certificates",
                    where="--cluster-tls",
                    hint="leave it out",
                )
            for name in TLS_FILES:
                if not (self.tls / name).is_file():
                    raise UsageError(
                        f"there is no {name}",
                        where=str(self.tls),
                        hint=f"the folder holds {', '.join(TLS_FILES)}; docs/scale.md makes them",
                    )
        elif self.address.startswith("tls://"):
            raise UsageError(
                f"{self.address} asks for certificates",
                where="--cluster",
                hint="name their folder with --cluster-tls",
            )

    @property
    def local(self) -> bool:
        """Whether the cluster is started for this command."""
        return self.address == LOCAL

    @property
    def processes(self) -> int:
        """Processes that craft in a local cluster."""
        return self.workers or os.cpu_count() or 1


def parse_cluster(
    text: str, *, workers: int | None = None, tls: Path | None = None, dashboard: int = 0
) -> ClusterSettings:
    """What ``--cluster`` says: ``local``, an address, or a scheduler file.

    Raises:
        UsageError: it is none of these, or another setting does not go with it.
    """
    known = text == LOCAL or _ADDRESS.fullmatch(text)
    if not known and ("://" in text or not Path(text).is_file()):
        raise UsageError(
            f"{text!r} is no cluster",
            where="--cluster",
            hint="use local, tcp://HOST:PORT, tls://HOST:PORT, or the scheduler file that "
            "'dask scheduler --scheduler-file FILE' writes",
        )
    return ClusterSettings(address=text, workers=workers, tls=tls, dashboard=dashboard)
