"""The server in field mode as a process, and its counter as a library, for tests."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from link_rig import APP, FAKE, PORT, REPO, SERVER_SOURCES

from bnnmcu.field import DeviceKey

C = REPO / "tests" / "c"
#: That of tests/c/field_key.c.
KEY = DeviceKey(bytes(range(16)))
_COUNTER = (
    APP / "bnn_field.c",
    APP / "bnn_siphash.c",
    C / "field_key.c",
    C / "field_storage.c",
)
FIELD_SOURCES = (
    *(APP / "bnn_server_field.c" if x.name == "bnn_server_infer.c" else x for x in SERVER_SOURCES),
    *_COUNTER,
)
#: Whose seeds a test chooses by -DFIELD_FIRST.
KNOWN_SOURCES = (
    *(x for x in FIELD_SOURCES if x not in _COUNTER),
    C / "field_known.c",
)
FIELD = ("-DBNN_FIELD", "-DFIELD_FILE")


def seeds_of(first: int, count: int) -> list[int]:
    """What the board draws with for values of its counter from ``first`` on."""
    counters = np.array([first + i for i in range(count)], dtype=np.uint64)
    return [int(seed) for seed in KEY.seeds(counters)]


class CounterLibrary:
    """bnn_field.c over marks and power that tests control."""

    def __init__(self, out: Path, field_c: Path | None = None) -> None:
        compiler = shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            pytest.skip("no C compiler (gcc or clang) on this machine")
        files = [field_c if field_c and x.name == "bnn_field.c" else x for x in _COUNTER]
        flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
        includes = [f"-I{folder}" for folder in (FAKE, APP, PORT)]
        subprocess.run(
            [compiler, *flags, "-fPIC", "-shared", *includes, "-DBNN_FIELD_BLOCK=32u"]
            + [str(path) for path in (*files, APP / "bnn_frame.c")]
            + ["-o", str(out)],
            check=True,
        )
        self._c = ctypes.CDLL(str(out))
        self._c.bnn_field_take.restype = ctypes.c_bool
        self._c.bnn_siphash.restype = ctypes.c_uint64
        self._c.bnn_field_seed.restype = ctypes.c_uint64

    def new_board(self) -> None:
        """No mark is set."""
        self._c.field_new()

    def start(self, seed: int, lasts: int, fades: bool) -> None:
        """Power comes; it goes while the ``lasts``-th mark from now on is set."""
        self._c.field_power(seed, lasts, int(fades))
        self._c.bnn_field_init()

    def take(self, count: int) -> range | None:
        """Values of the counter; None without power, or without marks."""
        first = ctypes.c_uint64()
        if not self._c.bnn_field_take(count, ctypes.byref(first)):
            return None
        return range(first.value, first.value + count)

    def seed(self, counter: int) -> int:
        """The seed of a value, under the key of tests/c/field_key.c."""
        return int(self._c.bnn_field_seed(ctypes.c_uint64(counter)))

    def siphash(self, key: bytes, data: bytes) -> int:
        """The firmware's hash."""
        return int(self._c.bnn_siphash(key, data, ctypes.c_size_t(len(data))))
