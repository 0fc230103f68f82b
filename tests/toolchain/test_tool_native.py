"""The cache of compiled libraries: what it may share, and what not."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnnmcu.errors import MissingDependencyError
from bnnmcu.toolchain import native

SOURCES = {"one.c": b"int bnn_one(void);\nint bnn_one(void) { return 1; }\n"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNNMCU_CACHE", str(tmp_path))
    try:
        native.host_compiler()
    except MissingDependencyError as error:
        pytest.skip(error.what)


def test_the_same_is_compiled_once() -> None:
    library = native._compile(SOURCES)
    built = library.stat().st_mtime_ns
    assert native._compile(SOURCES) == library
    assert library.stat().st_mtime_ns == built


def test_another_machine_gets_a_library_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    here = native._compile(SOURCES)
    monkeypatch.setattr(native.platform, "machine", lambda: "another")
    assert native._compile(SOURCES) != here


def test_another_compiler_version_too(monkeypatch: pytest.MonkeyPatch) -> None:
    old = native._compile(SOURCES)
    monkeypatch.setattr(native, "compiler_version", lambda *_: "cc 999.0")
    assert native._compile(SOURCES) != old


def test_a_compiler_is_asked_for_its_version_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def answer(command: list[str]) -> str:
        asked.append(command)
        return "cc 1.2"

    native.compiler_version.cache_clear()
    monkeypatch.setattr(native, "version_of", answer)
    assert [native.compiler_version("some", "cc") for _ in range(3)] == ["cc 1.2"] * 3
    assert asked == [["some", "cc", "--version"]]
    native.compiler_version.cache_clear()
