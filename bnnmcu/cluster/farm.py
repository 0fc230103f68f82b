"""A farm file: the boards that are attached to a machine, in TOML.

    [[board]]
    name = "shelf-1"
    port = "serial:066DFF3833"

    [[board]]
    name = "twin-1"
    emulate = "qemu"
    pace = 115200

The keys are those of a campaign's ``[[board]]`` (docs/ATTACKS.md).  Names are the
farm's own: they stand beside every answer in a results file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from bnnmcu.attack.toml_values import check_keys, check_name, checked, nearest, read_toml
from bnnmcu.errors import UsageError
from bnnmcu.target import TargetOptions

__all__ = ["FarmBoard", "chosen", "read_farm"]

_MOST_BOARDS = 1024


@dataclass(frozen=True, kw_only=True)
class FarmBoard:
    """One board of a farm.  Exactly one of ``port`` and ``emulate`` is given.

    Attributes:
        name: what the farm calls it.
        port: of a real board: a port, ``serial:NUMBER``, or an address (``rfc2217://...``).
        emulate: an emulated one.
        baud, max_baud, flaky, pace, toolchain, reconnect: see
            :class:`bnnmcu.target.TargetOptions`.
    """

    name: str
    port: str | None = None
    emulate: Literal["auto", "qemu", "unicorn"] | None = None
    baud: int | None = None
    max_baud: int | None = None
    flaky: str | None = None
    pace: int | None = None
    toolchain: Literal["gcc", "zig", "platformio"] | None = None
    reconnect: float = 60.0

    @property
    def options(self) -> TargetOptions:
        """How to reach it."""
        names = {one.name for one in fields(TargetOptions)} & {one.name for one in fields(self)}
        return TargetOptions(**{name: getattr(self, name) for name in names})


def read_farm(path: Path) -> tuple[FarmBoard, ...]:
    """All boards of a farm file, in order.

    Raises:
        UsageError: it cannot be read, or says what cannot be.
    """
    tables = read_toml(path)
    check_keys(tables, ("board",), str(path))
    given = tables.get("board", [])
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise UsageError(
            "is not a list of tables", where=f"{path}: board", hint="write it [[board]]"
        )
    if not given:
        raise UsageError("names no board", where=str(path), hint="add a [[board]] table")
    if len(given) > _MOST_BOARDS:
        raise UsageError(f"more than {_MOST_BOARDS} boards", where=str(path))
    hints = get_type_hints(FarmBoard)
    found: dict[str, FarmBoard] = {}
    ways: dict[str, str] = {}
    for number, table in enumerate(given, start=1):
        board = _board(table, hints, f"{path}: [[board]] {number}")
        if board.name in found:
            raise UsageError(
                f"the name {board.name!r} is taken", where=f"{path}: [[board]] {number}"
            )
        if board.port is not None and board.port != "auto" and board.port in ways:
            raise UsageError(
                f"{board.port} is {ways[board.port]!r} already",
                where=f"{path}: [[board]] {number} ({board.name})",
                hint="two boards cannot be on one port",
            )
        found[board.name] = board
        ways[board.port or ""] = board.name
    return tuple(found.values())


def _board(table: dict[str, Any], hints: dict[str, Any], place: str) -> FarmBoard:
    check_keys(table, hints, place)
    if "name" not in table:
        raise UsageError("missing key 'name'", where=place, hint='for example: name = "shelf-1"')
    values = {key: checked(hints[key], value, f"{place}: {key}") for key, value in table.items()}
    check_name(values["name"], f"{place}: name")
    board = FarmBoard(**values)
    if (board.port is None) == (board.emulate is None):
        raise UsageError("needs exactly one of 'port' and 'emulate'", where=place)
    if board.emulate is not None and (board.baud is not None or board.max_baud is not None):
        raise UsageError(
            "an emulator has no baud rate", where=place, hint="use 'pace' to slow its line down"
        )
    return board


def chosen(boards: Sequence[FarmBoard], names: Sequence[str], where: str) -> tuple[FarmBoard, ...]:
    """Those of the names; all of them for no name.

    Raises:
        UsageError: a name that is not there.
    """
    known = {one.name: one for one in boards}
    for name in names:
        if name not in known:
            raise UsageError(f"no board is called {name!r}", where=where, hint=nearest(name, known))
    return tuple(known[name] for name in dict.fromkeys(names)) if names else tuple(boards)
