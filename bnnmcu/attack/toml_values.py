"""TOML read strictly: unknown keys, wrong types and misspelt names are told, never guessed.

A misspelt key that is silently ignored would be an attack with another setting
than the one asked for, and nobody would see it in the figures.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from bnnmcu.errors import UsageError

__all__ = ["check_keys", "check_name", "checked", "nearest", "read_toml"]

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
# Becomes a part of file names and of the names of cases.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,59}")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a file.

    Raises:
        UsageError: it cannot be read, or is not TOML.
    """
    try:
        # Windows' Notepad puts a byte order mark before UTF-8.
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror or error}",
            where=str(path),
            hint="check the path; docs/ATTACKS.md describes the file",
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(
            f"not a TOML file: {error}",
            where=str(path),
            hint="examples/campaign.toml shows the form",
        ) from error


def nearest(name: str, known: Iterable[str]) -> str:
    """What to do about an unknown name: the nearest one, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def check_keys(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raise a UsageError for the first key that is not known."""
    names = list(known)
    for key in table:
        if key not in names:
            raise UsageError(f"unknown key {key!r}", where=where, hint=nearest(key, names))


def check_name(name: str, where: str) -> str:
    """A name that may stand in a file's name, as it is.

    Raises:
        UsageError: it may not.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a name",
            where=where,
            hint="use at most 60 letters, digits and . _ + -, a letter or digit first",
        )
    return name


def checked(hint: Any, value: Any, where: str) -> Any:
    """A value of TOML as one of a type: int, float, bool, str, Literal, tuple, or None besides.

    Raises:
        UsageError: it is of another type, or a name that is not known.
    """
    kinds = [kind for kind in _alternatives(hint) if kind is not NoneType]
    if len(kinds) == 1:
        return _one(kinds[0], value, where)
    for kind in kinds:
        try:
            return _one(kind, value, where)
        except UsageError:
            continue
    raise UsageError(f"{value!r:.60} is none of what can stand here", where=where)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _one(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) is Literal:
        names = get_args(hint)
        if value in names and type(value) in map(type, names):
            return value
        raise UsageError(
            f"{value!r:.60} is not known here",
            where=where,
            hint=nearest(str(value), map(str, names)),
        )
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise UsageError(f"{value!r:.60} is not a list", where=where)
        inner = get_args(hint)[0]
        return tuple(checked(inner, one, where) for one in value)
    if hint is float and type(value) is int:
        return float(value)
    # bool is an int in Python, but "true" is no number of steps.
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        raise UsageError(f"{value!r:.60} is not {_KINDS.get(hint, hint)}", where=where)
    return value
