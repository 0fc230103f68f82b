"""Field mode's secret, on the side of its owner: the key, and the seeds that follow from it.

A board in field mode (docs/FIELD.md) takes no seeds: that of a draw is
SipHash-2-4(device key, value of its counter).  Whoever has the key computes the
same, and so checks a board's answers bit for bit.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import DataError, UsageError

__all__ = ["KEY_BYTES", "DeviceKey", "readable_by_others", "siphash"]

KEY_BYTES = 16
_TEXT = re.compile(r"[0-9a-fA-F]{32}\s*")
_MOST_TEXT = 100
_M = (1 << 64) - 1
_START = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)


def siphash(key: bytes, data: bytes) -> int:
    """SipHash-2-4, 64 bits (Aumasson and Bernstein, INDOCRYPT 2012).

    Args:
        key: 16 bytes.
        data: any number of them.

    Raises:
        UsageError: a key of another length.
    """
    if len(key) != KEY_BYTES:
        raise UsageError(f"a key of {len(key)} bytes; SipHash takes {KEY_BYTES}")
    halves = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = [start ^ halves[i % 2] for i, start in enumerate(_START)]
    whole = len(data) // 8 * 8
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, whole, 8)]
    words.append(int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56)
    for word in words:
        v[3] ^= word
        _rounds(v, 2)
        v[0] ^= word
    v[2] ^= 0xFF
    _rounds(v, 4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def _rounds(v: list[int], count: int) -> None:
    for _ in range(count):
        for a, b, turn, half in ((0, 1, 13, True), (2, 3, 16, False)):
            v[a] = v[a] + v[b] & _M
            v[b] = _rotated(v[b], turn) ^ v[a]
            v[a] = _rotated(v[a], 32) if half else v[a]
        for a, b, turn, half in ((0, 3, 21, False), (2, 1, 17, True)):
            v[a] = v[a] + v[b] & _M
            v[b] = _rotated(v[b], turn) ^ v[a]
            v[a] = _rotated(v[a], 32) if half else v[a]


def _rotated(word: int, bits: int) -> int:
    return (word << bits | word >> 64 - bits) & _M


@dataclass(frozen=True)
class DeviceKey:
    """The secret of one board.

    Attributes:
        secret: 16 bytes; not shown where the object is printed.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise UsageError(f"a device key of {len(self.secret)} bytes; it has {KEY_BYTES}")

    @classmethod
    def load(cls, path: Path) -> DeviceKey:
        """Read a key file: 32 hexadecimal digits.

        Raises:
            UsageError: there is none.
            DataError: it holds something else, or cannot be read.
        """
        try:
            with path.open("rb") as stream:
                text = stream.read(_MOST_TEXT).decode("ascii", errors="replace")
        except FileNotFoundError as error:
            raise UsageError(
                "there is no such key file",
                where=str(path),
                hint="name the one that the firmware was exported with",
            ) from error
        except OSError as error:
            raise DataError(f"cannot read it: {error.strerror}", where=str(path)) from error
        if _TEXT.fullmatch(text) is None:
            raise DataError(
                f"not a device key: {2 * KEY_BYTES} hexadecimal digits",
                where=str(path),
                hint="name another file; one that does not exist is made by "
                "'bnnmcu export --field --device-key FILE'",
            )
        return cls(bytes.fromhex(text.strip()))

    @classmethod
    def load_or_make(cls, path: Path) -> tuple[DeviceKey, bool]:
        """The key of a file, which is made, readable by its owner alone, if it does not exist.

        Returns:
            The key, and whether it was made just now.

        Raises:
            DataError: the file holds something else, or cannot be read.
            OSError: it cannot be written.
        """
        made = cls(secrets.token_bytes(KEY_BYTES))
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return cls.load(path), False
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(f"{made.secret.hex()}\n")
        return made, True

    def seeds(self, counters: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """The seeds of draws, uint64, by the values of the board's counter, of any shape."""
        found = [siphash(self.secret, int(n).to_bytes(8, "little")) for n in counters.flat]
        return np.array(found, dtype=np.uint64).reshape(counters.shape)


def readable_by_others(path: Path) -> bool:
    """Whether a key file's mode lets others than its owner read it; where modes mean something."""
    return os.name == "posix" and bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
