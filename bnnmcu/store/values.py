"""Values of a results file, checked as they are read: whoever sent it may have written them."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from bnnmcu.errors import StoreError

__all__ = [
    "MAX_BYTES",
    "MAX_CLASSES",
    "MAX_DRAWS",
    "MAX_LEVELS",
    "UNKNOWN_SEED",
    "Checker",
    "differences",
    "plain_json",
    "short",
]

MAX_DRAWS = 65_536
#: Of a budget: an L2 norm of 1000 in units of one pixel level.
MAX_LEVELS = 255_000
MAX_CLASSES = 65_536
#: Of any value; an image of 2048 x 2048 in colour has 12 MiB.
MAX_BYTES = 64 * 2**20
_MAX_DEPTH = 32
_MAX_INTEGER = 2**64
#: In place of a seed that only the device knows.
UNKNOWN_SEED = "unknown"
_HEX = {length: re.compile(rf"\A[0-9a-f]{{{length}}}\Z") for length in (16, 64)}
_TIME = re.compile(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z\Z")
_NAME = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}\Z")


def plain_json(text: object) -> Any:
    """A JSON value of finite numbers and moderate depth.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(text, str):
        raise ValueError("no text")
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    _walk(value, 0)
    return value


def _walk(value: Any, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _walk(inner, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is not finite")
    elif isinstance(value, int) and abs(value) > _MAX_INTEGER:
        raise ValueError("a number is out of range")


def short(value: Any) -> str:
    """A value as JSON in at most 60 characters, for messages."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def differences(now: Any, stored: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Places at which two JSON values differ: dotted name, value now, value stored."""
    found: list[tuple[str, Any, Any]] = []
    if isinstance(now, Mapping) and isinstance(stored, Mapping):
        for key in sorted(now.keys() | stored.keys()):
            found += differences(now.get(key), stored.get(key), f"{prefix}{key}.")
    elif isinstance(now, list) and isinstance(stored, list) and len(now) == len(stored):
        for index, (one, other) in enumerate(zip(now, stored, strict=True)):
            found += differences(one, other, f"{prefix}{index}.")
    elif now != stored or isinstance(now, bool) != isinstance(stored, bool):
        found.append((prefix[:-1] or "everything", now, stored))
    return found


class Checker:
    """Turns values of one row into what they must be, or says which is wrong.

    Args:
        path: of the file, for messages.
        place: the row, in words.
    """

    def __init__(self, path: Path, place: str) -> None:
        self._path = path
        self._place = place

    def fail(self, what: str) -> StoreError:
        """The error to raise for this row."""
        return StoreError(
            f"{self._place}: {what}",
            where=str(self._path),
            hint="a file that was altered or damaged: move it away and start a new run",
        )

    def integer(self, name: str, value: object, low: int, high: int) -> int:
        """An integer within both bounds."""
        if type(value) is not int or not low <= value <= high:
            raise self.fail(f"{name} is {value!r:.40}, not an integer from {low} to {high}")
        return value

    def real(self, name: str, value: object, high: float) -> float:
        """A finite number from 0 to ``high``."""
        # SQLite stores a NaN as NULL.
        if type(value) is not float or not 0.0 <= value <= high:
            raise self.fail(f"{name} is {value!r:.40}, not a number from 0 to {high:g}")
        return value

    def hexadecimal(self, name: str, value: object, length: int) -> str:
        """Lower-case hexadecimal digits."""
        if not isinstance(value, str) or not _HEX[length].match(value):
            raise self.fail(f"{name} is {value!r:.40}, not {length} hexadecimal digits")
        return value

    def seed(self, name: str, value: object) -> str:
        """16 lower-case hexadecimal digits, or the word for a seed that only the device knows."""
        return UNKNOWN_SEED if value == UNKNOWN_SEED else self.hexadecimal(name, value, 16)

    def word(self, name: str, value: object) -> str:
        """A name of letters, digits and a few signs."""
        if not isinstance(value, str) or not _NAME.match(value):
            raise self.fail(f"{name} is {value!r:.40}, not a name")
        return value

    def text(self, name: str, value: object, most: int) -> str:
        """Text without control characters."""
        if not isinstance(value, str) or len(value) > most or not value.isprintable():
            raise self.fail(f"{name} is {value!r:.40}, not plain text")
        return value

    def time(self, name: str, value: object) -> str:
        """A time in UTC, ``2026-01-31T23:59:59Z``, with or without a fraction of the second."""
        if isinstance(value, str) and _TIME.match(value):
            with contextlib.suppress(ValueError):
                datetime.fromisoformat(value)
                return value
        raise self.fail(f"{name} is {value!r:.40}, not a time such as 2026-01-31T23:59:59Z")

    def blob(self, name: str, value: object) -> bytes:
        """Bytes."""
        if not isinstance(value, bytes):
            raise self.fail(f"{name} is {value!r:.40}, not bytes")
        return value

    def mapping(self, name: str, value: object) -> dict[str, Any]:
        """A JSON object."""
        try:
            found = plain_json(value)
        except ValueError as error:
            raise self.fail(f"{name} is no sound JSON: {error}") from error
        # We write ASCII on one line, and it is exported as it stands.
        if not str(value).isprintable():
            raise self.fail(f"{name} has control characters")
        if not isinstance(found, dict):
            raise self.fail(f"{name} is no JSON object")
        return found
