"""An open Dask cluster: started for one command, or one that is running.

Never listens on anything but loopback here, and a local cluster encrypts with
a certificate that exists in memory only: whoever can talk to a Dask scheduler
can run code as its user, also from another account of the same machine.
"""

from __future__ import annotations

import logging
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from bnnmcu.attack.interrupts import held_interrupts
from bnnmcu.cluster.farm import FarmBoard
from bnnmcu.cluster.settings import BOARD, CRAFT, ClusterSettings
from bnnmcu.errors import BnnmcuError, ClusterError, MissingDependencyError, UsageError

__all__ = ["BOARDS_A_PROCESS", "CONNECT", "WORKER_GONE", "Engine", "open_cluster"]

#: Seconds to wait for a scheduler, and for the first worker that crafts.
CONNECT = 15.0
FIRST_WORKER = 60.0
#: Seconds that a board's worker may be away before the board is given up.
WORKER_GONE = 45.0
#: How many workers a chunk may have ended before it is taken for the culprit.
FAILURES = 10
#: Boards that share a process of a local cluster.
BOARDS_A_PROCESS = 4


@dataclass(frozen=True)
class _Worker:
    address: str
    name: str
    resources: dict[str, float]


class Engine:
    """A cluster that is open; made by :func:`open_cluster`.

    Attributes:
        dashboard: its address; None if there is none.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._alike: dict[str, str] | None = None
        served = client.scheduler_info(n_workers=0).get("services") or {}
        self.dashboard: str | None = client.dashboard_link if "dashboard" in served else None

    def workers(self) -> list[_Worker]:
        """Those that are there now."""
        with self._told("asking the scheduler"):
            known = self._client.scheduler_info(n_workers=-1)["workers"]
        return [
            _Worker(address, str(one["name"]), dict(one.get("resources") or {}))
            for address, one in known.items()
        ]

    def crafters(self) -> list[_Worker]:
        """Workers that craft."""
        return [one for one in self.workers() if CRAFT in one.resources]

    def boards(self) -> list[str]:
        """Names of all boards that workers own."""
        names = {
            name.removeprefix(BOARD)
            for one in self.workers()
            for name in one.resources
            if name.startswith(BOARD)
        }
        return sorted(names)

    def check_alike(self) -> dict[str, str]:
        """What all workers that craft have in common.

        Raises:
            ClusterError: none came, or they differ: images would depend on who makes them.
        """
        from bnnmcu.cluster.workers import facts

        until = time.monotonic() + FIRST_WORKER
        while not (crafters := self.crafters()):
            if time.monotonic() > until:
                raise ClusterError(
                    f"no worker that crafts has come in {FIRST_WORKER:g} s",
                    where=self._client.scheduler.address,
                    hint="start some: bnnmcu worker ADDRESS --workers 4",
                )
            time.sleep(0.1)
        with self._told("asking workers what they are"):
            told = self._client.run(facts, workers=[one.address for one in crafters])
        kinds: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for address, one in told.items():
            kinds.setdefault(tuple(sorted(one.items())), []).append(address)
        if len(kinds) > 1:
            text = "; ".join(
                f"{', '.join(f'{key} {value}' for key, value in kind)}: {len(whose)} of them, "
                f"such as {whose[0]}"
                for kind, whose in kinds.items()
            )
            raise ClusterError(
                "workers differ, so that images would depend on who makes them",
                where=text,
                hint="use workers of one kind; what is stored goes on with any kind of its own",
            )
        self._alike = dict(next(iter(kinds)))
        if self._alike["torch"] == "none":
            raise MissingDependencyError(
                "workers craft with torch, and have none",
                where=crafters[0].address,
                hint="pip install 'bnnmcu[attack,cluster]' there",
            )
        return self._alike

    def described(self) -> dict[str, Any]:
        """For a run's provenance: size, and what workers have in common."""
        return {
            "workers": len(self.crafters()),
            "boards": self.boards(),
            "alike": self._alike or {},
        }

    def share(self, value: Any) -> Any:
        """A value that many tasks are given, sent once.

        As a task of its own: what Dask scatters is lost with the worker that has it.
        """
        return self._client.submit(_itself, value, key=f"material-{uuid.uuid4().hex}", pure=False)

    def submit(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        name: str,
        craft: bool = False,
        board: str = "",
    ) -> Any:
        """Run a function in a worker that crafts, or in the one that owns a board."""
        resources = {CRAFT: 1} if craft else {BOARD + board: 1}
        return self._client.submit(
            function,
            *arguments,
            key=f"{name}-{uuid.uuid4().hex}",
            pure=False,
            resources=resources,
        )

    def as_completed(self, futures: list[Any]) -> Iterator[Any]:
        """Futures in the order in which they end."""
        from distributed import as_completed

        yield from as_completed(futures, loop=self._client.loop)

    def result(self, future: Any, what: str) -> Any:
        """Of a future that has ended.

        Raises:
            BnnmcuError: what the function raised.
            ClusterError: it has none, because workers or the scheduler are gone.
        """
        with self._told(what):
            return future.result()

    def cancel(self, futures: list[Any]) -> None:
        """Have them not begin; those that run end."""
        with suppress(Exception):
            # Where the scheduler is gone, there is nothing left to cancel.
            self._client.cancel(futures, force=True)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        from concurrent.futures import CancelledError

        from distributed.scheduler import KilledWorker

        try:
            yield
        except BnnmcuError:
            raise
        except KilledWorker as error:
            raise ClusterError(
                f"{what} ended {FAILURES} workers that had it",
                hint="look whether a worker has too little memory; the same command goes on",
            ) from error
        except (CancelledError, OSError, TimeoutError) as error:
            raise ClusterError(
                f"{what}: the cluster is gone ({type(error).__name__})",
                where=str(self._client.scheduler.address if self._client.scheduler else ""),
                hint="the same command goes on, on any cluster",
            ) from error


def _itself(value: Any) -> Any:
    return value


def _has_dashboard() -> bool:
    try:
        import bokeh  # noqa: F401
    except ImportError:
        return False
    return True


@contextmanager
def open_cluster(
    settings: ClusterSettings,
    boards: Sequence[FarmBoard] = (),
    announce: Callable[[str], None] = lambda _: None,
) -> Iterator[Engine]:
    """Connect to a cluster, or start one on this machine.

    Args:
        boards: that a local cluster owns; a running one has its own.
        announce: is told where the dashboard is.

    Raises:
        MissingDependencyError: Dask is not installed.
        UsageError: boards were named for a running cluster.
        ClusterError: there is no scheduler at the address.
    """
    try:
        with held_interrupts():
            import dask
            from distributed import Client
    except ImportError as error:
        raise MissingDependencyError(
            "a cluster needs Dask distributed", hint="pip install 'bnnmcu[cluster]'"
        ) from error
    if boards and not settings.local:
        raise UsageError(
            "the boards of a running cluster belong to its workers",
            where="--farm",
            hint="bnnmcu worker ADDRESS --farm FILE on the machine that they are attached to",
        )
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        stack.enter_context(
            dask.config.set(
                {
                    "distributed.scheduler.allowed-failures": FAILURES,
                    "distributed.comm.timeouts.connect": f"{CONNECT:g}s",
                    "distributed.worker.profile.enabled": False,
                }
            )
        )
        if settings.local:
            cluster, security = stack.enter_context(_local(settings, boards))
            client = stack.enter_context(Client(cluster, security=security, set_as_default=False))
        else:
            client = stack.enter_context(_running(settings))
        engine = Engine(client)
        where = f"{settings.processes} workers on this machine" if settings.local else ""
        where = where or f"{len(engine.crafters())} workers at {client.scheduler.address}"
        if engine.dashboard:
            announce(f"{where}; dashboard: {engine.dashboard}")
        else:
            announce(f"{where}; without Dask's dashboard, which needs bokeh")
        yield engine


@contextmanager
def _running(settings: ClusterSettings) -> Iterator[Any]:
    from distributed import Client

    from bnnmcu.cluster.workers import security_of

    how: dict[str, Any] = {"security": security_of(settings.tls), "timeout": CONNECT}
    if "://" in settings.address:
        how["address"] = settings.address
    else:
        how["scheduler_file"] = settings.address
    try:
        client = Client(set_as_default=False, **how)
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise ClusterError(
            f"there is no scheduler: {error}",
            where=settings.address,
            hint="dask scheduler --host 127.0.0.1 starts one; docs/scale.md has the rest",
        ) from error
    with client:
        yield client


@contextmanager
def _local(settings: ClusterSettings, boards: Sequence[FarmBoard]) -> Iterator[tuple[Any, Any]]:
    from distributed import Nanny, Scheduler, SpecCluster
    from distributed.security import Security

    from bnnmcu.cluster.workers import nanny_options

    try:
        security = Security.temporary()
    except ImportError as error:
        raise MissingDependencyError(
            "a local cluster encrypts with the package cryptography",
            hint="pip install 'bnnmcu[cluster]'",
        ) from error
    with tempfile.TemporaryDirectory(prefix="bnnmcu-cluster-") as folder:
        groups: list[Sequence[FarmBoard]] = [
            boards[start : start + BOARDS_A_PROCESS]
            for start in range(0, len(boards), BOARDS_A_PROCESS)
        ]
        roles = [(True, ())] * settings.processes + [(False, tuple(one)) for one in groups]
        workers = {
            f"{'craft' if craft else 'boards'}-{number}": {
                "cls": Nanny,
                "options": nanny_options(craft=craft, boards=own, folder=folder, security=security)
                | {"host": "127.0.0.1"},
            }
            for number, (craft, own) in enumerate(roles)
        }
        scheduler = {
            "cls": Scheduler,
            "options": {
                "host": "127.0.0.1",
                "port": 0,
                "protocol": "tls://",
                "security": security,
                "dashboard": _has_dashboard(),
                "dashboard_address": f"127.0.0.1:{settings.dashboard}",
            },
        }
        cluster = SpecCluster(
            workers=workers, scheduler=scheduler, security=security, silence_logs=logging.CRITICAL
        )
        try:
            yield cluster, security
        finally:
            with suppress(Exception):
                cluster.close(timeout=10)
