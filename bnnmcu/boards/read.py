"""Board files are read strictly: every key is required and none may be added.

A misspelt key that is silently ignored would become a wrong clock.  Those that
may be left out, ``watchdog`` and ``field_mode``, are what an export adds to its
copy; a misspelt one is an unknown key all the same.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from bnnmcu.boards.board import Board
from bnnmcu.boards.check import check
from bnnmcu.boards.cores import CORES
from bnnmcu.boards.families import FAMILIES
from bnnmcu.boards.model import Clock, Uart
from bnnmcu.errors import BoardError

__all__ = ["read_board"]

_EXAMPLE = "boards/nucleo_f446re.toml"
_OPTIONAL = ("watchdog", "field_mode")

_T = TypeVar("_T")


def read_board(entry: Traversable | Path, where: str) -> Board:
    """A board from its TOML file.

    Args:
        where: what to call the file in errors.

    Raises:
        BoardError: it is unreadable or unsound.
    """
    try:
        # Windows' Notepad puts a byte order mark before UTF-8.
        text = entry.read_bytes().decode("utf-8-sig")
        table = tomllib.loads(text)
    except OSError as error:
        raise BoardError(f"cannot be read: {error.strerror or error}", where=where) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BoardError(f"not a TOML file: {error}", where=where) from error
    # The family says what [clock] and [uart] hold.
    kinds: dict[str, type] = {"clock": Clock, "uart": Uart}
    for key, known in (("core", CORES), ("family", FAMILIES)):
        name = table.get(key)
        if name is not None and (not isinstance(name, str) or name not in known):
            raise BoardError(f"unknown {key} {name!r}; known: {', '.join(known)}", where=where)
    if "family" in table:
        family = FAMILIES[table["family"]]
        kinds = {"clock": family.clock, "uart": family.uart}
    board = _build(Board, table, where, kinds)
    check(board, where)
    return replace(board, source=text)


def _build(kind: type[_T], table: Mapping[str, Any], where: str, kinds: Mapping[str, type]) -> _T:
    """A dataclass from a table with exactly its fields, types checked."""
    hints = get_type_hints(kind)
    names = [item.name for item in fields(kind) if item.name != "source"]  # type: ignore[arg-type]
    for key in table:
        if key not in names:
            close = difflib.get_close_matches(key, names, n=1)
            raise BoardError(
                f"unknown key {key!r}",
                where=where,
                hint=f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}",
            )
    missing = [name for name in names if name not in table and name not in _OPTIONAL]
    if missing:
        raise BoardError(
            f"missing key {', '.join(map(repr, missing))}",
            where=where,
            hint=f"{_EXAMPLE} and its neighbours show every key",
        )
    values = {
        name: _value(kinds.get(name, hints[name]), table[name], f"{where}: {name}")
        for name in names
        if name in table
    }
    return kind(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    if hint == tuple[str, ...]:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise BoardError("must be a list of strings", where=where)
    if hint in (int, bool, str):
        # bool is an int in Python, but "true" is no size.
        if type(value) is hint:
            return value
        raise BoardError(f"must be of type {hint.__name__}, not {value!r}", where=where)
    if not isinstance(value, dict):
        raise BoardError("must be a table", where=where)
    return _build(hint, value, where, {})
