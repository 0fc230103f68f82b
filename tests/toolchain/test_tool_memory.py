"""The firmware's own memcpy and its kin, compiled for this machine, against bytes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnnmcu.resources import templates

NAMES = ("memcpy", "memmove", "memset", "memcmp")
SIZE = 64


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("there is no C compiler for this machine")
    folder = tmp_path_factory.mktemp("memory")
    (folder / "memory.c").write_bytes(templates().joinpath("port", "bnn_memory.c").read_bytes())
    library = folder / "memory.so"
    flags = ["-std=c99", "-O3", "-ffreestanding", "-shared", "-fPIC"]
    flags += [f"-D{name}=bnn_test_{name}" for name in NAMES]
    subprocess.run([compiler, *flags, "memory.c", "-o", library.name], cwd=folder, check=True)
    loaded = ctypes.CDLL(str(library))
    for name in NAMES:
        function = getattr(loaded, f"bnn_test_{name}")
        pointer = ctypes.c_void_p
        middle = ctypes.c_int if name == "memset" else pointer
        function.argtypes = (pointer, middle, ctypes.c_size_t)
        function.restype = ctypes.c_int if name == "memcmp" else pointer
    return loaded


spans = st.tuples(st.integers(0, 24), st.integers(0, 24), st.integers(0, 40))
contents = st.binary(min_size=SIZE, max_size=SIZE)


@given(span=spans, left=contents, right=contents)
def test_memcpy(ours: ctypes.CDLL, span: tuple[int, int, int], left: bytes, right: bytes) -> None:
    to, start, size = span
    target, source = ctypes.create_string_buffer(left, SIZE), ctypes.create_string_buffer(right)
    base = ctypes.addressof(target)
    assert ours.bnn_test_memcpy(base + to, ctypes.addressof(source) + start, size) == base + to
    assert target.raw == left[:to] + right[start : start + size] + left[to + size :]


@given(span=spans, content=contents)
def test_memmove_within_one_buffer(
    ours: ctypes.CDLL, span: tuple[int, int, int], content: bytes
) -> None:
    to, start, size = span
    buffer = ctypes.create_string_buffer(content, SIZE)
    base = ctypes.addressof(buffer)
    assert ours.bnn_test_memmove(base + to, base + start, size) == base + to
    assert buffer.raw == content[:to] + content[start : start + size] + content[to + size :]


@given(span=spans, content=contents, value=st.integers(-300, 300))
def test_memset(ours: ctypes.CDLL, span: tuple[int, int, int], content: bytes, value: int) -> None:
    to, _, size = span
    buffer = ctypes.create_string_buffer(content, SIZE)
    base = ctypes.addressof(buffer)
    assert ours.bnn_test_memset(base + to, value, size) == base + to
    assert buffer.raw == content[:to] + bytes([value & 0xFF]) * size + content[to + size :]


@given(content=contents, place=st.integers(0, SIZE - 1), value=st.integers(0, 255))
def test_memcmp(ours: ctypes.CDLL, content: bytes, place: int, value: int) -> None:
    other = content[:place] + bytes([value]) + content[place + 1 :]
    left, right = ctypes.create_string_buffer(content), ctypes.create_string_buffer(other)
    order = ours.bnn_test_memcmp(ctypes.addressof(left), ctypes.addressof(right), SIZE)
    assert (order > 0) - (order < 0) == (content > other) - (content < other)
    assert ours.bnn_test_memcmp(ctypes.addressof(left), ctypes.addressof(right), place) == 0
