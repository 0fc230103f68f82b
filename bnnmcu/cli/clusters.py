"""Options of a cluster, and opening what they say; Dask is imported only then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnmcu.cli.output import note
from bnnmcu.errors import UsageError

if TYPE_CHECKING:
    from bnnmcu.attack.oracle import Oracle
    from bnnmcu.backend.project import Project
    from bnnmcu.cluster.engine import Engine
    from bnnmcu.cluster.settings import ClusterSettings

__all__ = ["ClusterChoice", "cluster_options", "farm_oracle", "opened"]


@dataclass(frozen=True)
class ClusterChoice:
    """What the options say.

    Attributes:
        settings: of the cluster; None for none.
        farm: file of the boards of a local cluster.
        boards: names of those to use; all if there is none.
        own_boards: whether the cluster's boards answer.
    """

    settings: ClusterSettings | None = None
    farm: Path | None = None
    boards: tuple[str, ...] = ()

    @property
    def own_boards(self) -> bool:
        """Whether boards of the cluster answer."""
        return self.farm is not None or bool(self.boards)


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which cluster: the command gets a :class:`ClusterChoice` as ``cluster``."""

    @wraps(command)
    def with_cluster(
        *args: Any,
        cluster: str | None,
        workers: int | None,
        cluster_tls: Path | None,
        dashboard: int,
        farm: Path | None,
        board: tuple[str, ...],
        **others: Any,
    ) -> Any:
        choice = _choice(cluster, workers, cluster_tls, dashboard, farm, board)
        return command(*args, cluster=choice, **others)

    for option in (
        click.option(
            "--board",
            multiple=True,
            metavar="NAME",
            help="Ask this board of the cluster or the farm; may be repeated. Default: all.",
        ),
        click.option(
            "--farm",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="Ask all boards of this farm file at once, from a local cluster.",
        ),
        click.option(
            "--dashboard",
            type=click.IntRange(0, 65535),
            default=0,
            metavar="PORT",
            help="Port of a local cluster's dashboard, on loopback. Default: any.",
        ),
        click.option(
            "--cluster-tls",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help="Folder with ca.pem, cert.pem and key.pem, for a running cluster.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            help="Processes of a local cluster that craft. Default: one on each core.",
        ),
        click.option(
            "--cluster",
            is_flag=False,
            flag_value="local",
            metavar="[local|ADDRESS|FILE]",
            help="Craft on a Dask cluster: one on this machine's cores, or a running one by its "
            "address (tcp://HOST:PORT) or scheduler file.",
        ),
    ):
        with_cluster = option(with_cluster)
    return with_cluster


def _choice(
    cluster: str | None,
    workers: int | None,
    tls: Path | None,
    dashboard: int,
    farm: Path | None,
    boards: tuple[str, ...],
) -> ClusterChoice:
    from bnnmcu.cluster.settings import parse_cluster

    if cluster is None and farm is not None:
        # Boards need workers that own them.
        cluster = "local"
    if cluster is None:
        for option, given in (
            ("--workers", workers is not None),
            ("--cluster-tls", tls is not None),
            ("--dashboard", bool(dashboard)),
            ("--board", bool(boards)),
        ):
            if given:
                raise UsageError("is of a cluster", where=option, hint="add --cluster")
        return ClusterChoice()
    settings = parse_cluster(cluster, workers=workers, tls=tls, dashboard=dashboard)
    if farm is not None and not settings.local:
        raise UsageError(
            "the boards of a running cluster belong to its workers",
            where="--farm",
            hint=f"bnnmcu worker {cluster} --farm {farm} where they are, and --board NAME here",
        )
    if boards and settings.local and farm is None:
        raise UsageError(
            "a local cluster has the boards of a farm file", where="--board", hint="add --farm FILE"
        )
    return ClusterChoice(settings, farm, boards)


@contextmanager
def opened(choice: ClusterChoice) -> Iterator[Engine | None]:
    """The cluster, while it lasts; None where none was asked for.

    Raises:
        BnnmcuError: as :func:`bnnmcu.cluster.engine.open_cluster`.
    """
    if choice.settings is None:
        yield None
        return
    from bnnmcu.cluster.farm import chosen, read_farm

    boards = chosen(read_farm(choice.farm), choice.boards, "--board") if choice.farm else ()
    from bnnmcu.cluster.engine import open_cluster

    with open_cluster(choice.settings, boards, note) as engine:
        yield engine


def farm_oracle(choice: ClusterChoice, engine: Engine | None, project: Project) -> Oracle | None:
    """The cluster's boards as one oracle; None where they were not asked for."""
    if engine is None or not choice.own_boards:
        return None
    from bnnmcu.cluster.boards import FarmOracle

    return FarmOracle(engine, project, choice.boards or None, announce=note)
