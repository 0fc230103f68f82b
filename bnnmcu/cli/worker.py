"""``bnnmcu worker``."""

from __future__ import annotations

from pathlib import Path

import click

from bnnmcu.cli.output import note
from bnnmcu.errors import UsageError

__all__ = ["command"]


@click.command("worker")
@click.argument("address", metavar="ADDRESS|FILE")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes that craft. Default: one on each core, or none with --farm.",
)
@click.option(
    "--farm",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Farm file of the boards that are attached to this machine.",
)
@click.option(
    "--board",
    "boards",
    multiple=True,
    metavar="NAME",
    help="Own this board of the farm file; may be repeated. Default: all.",
)
@click.option(
    "--cluster-tls",
    "tls",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder with ca.pem, cert.pem and key.pem.",
)
@click.option(
    "--host",
    metavar="ADDRESS",
    help="Listen on this address of the machine. Default: loopback, or with certificates the "
    "one that leads to the scheduler.",
)
def command(
    address: str,
    workers: int | None,
    farm: Path | None,
    boards: tuple[str, ...],
    tls: Path | None,
    host: str | None,
) -> None:
    """Work for a cluster, until Ctrl-C: craft images, and ask the boards attached here.

    ADDRESS is that of a Dask scheduler (tcp://HOST:PORT), or FILE its scheduler
    file. Whoever reaches a scheduler or a worker can run code here, so that
    without certificates nothing but loopback is listened on unless --host says so.

    \b
    Example:
      dask scheduler --host 127.0.0.1 --port 8786
      bnnmcu worker tcp://127.0.0.1:8786 --workers 4
      bnnmcu worker tcp://127.0.0.1:8786 --farm shelf.toml
      bnnmcu attack s64 --cluster tcp://127.0.0.1:8786 --native
    """
    from bnnmcu.cluster.farm import chosen, read_farm
    from bnnmcu.cluster.settings import parse_cluster

    settings = parse_cluster(address, tls=tls)
    if settings.local:
        raise UsageError(
            "a local cluster starts its own workers", hint="name a scheduler's address"
        )
    if boards and farm is None:
        raise UsageError("--board names boards of a farm file", where="--board", hint="add --farm")
    owned = chosen(read_farm(farm), boards, "--board") if farm is not None else ()
    from bnnmcu.cluster.serve import serve

    serve(settings, workers=workers, boards=owned, host=host, announce=note)
