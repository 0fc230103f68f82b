"""The counting plugin's records, and how inferences are found among them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from needs import need_toolchain

from bnnmcu.boards import Board
from bnnmcu.errors import ToolchainError
from bnnmcu.toolchain import count_plugin
from bnnmcu.toolchain.compiler import BuildResult
from bnnmcu.toolchain.count_plugin import (
    INFER,
    TICKS,
    CountPlugin,
    Record,
    build_plugin,
    inferences,
    interface,
    read_records,
)

_NAMES = ("alpha", "beta")


def _records(kinds: str) -> list[Record]:
    """One record a letter, t or i; the n-th one (from 0) adds n instructions to its function."""
    found, total = [], 0
    for n, letter in enumerate(kinds):
        total += n
        kind = TICKS if letter == "t" else INFER
        found.append(Record(kind, total, 10 * total, total, {n % 3: n} if n else {}))
    return found


# A network of two layers: ticks, infer, two for each layer, ticks.
@pytest.mark.parametrize(
    ("kinds", "starts"),
    [
        ("titttt", []),  # the last one is missing: still running, or ended by a fault
        ("tittttt", [0]),
        ("t" * 9 + "tittttt", [9]),  # a greeting may read the ticks, too
        ("tittttt" + "tttttt", [0]),  # a further draw of the image is no inference
        ("tittttt" * 3, [0, 7, 14]),
        ("titt" + "tittttt", [4]),  # one that was broken off, then a whole one
        ("ittttt", []),  # nothing started the clock
        ("", []),
    ],
)
def test_inferences_among_other_readings(kinds: str, starts: list[int]) -> None:
    records = _records(kinds)
    found = inferences(records, 2, _NAMES)
    total = [record.instructions for record in records]
    assert [tuple(span.instructions for span in spans) for spans in found] == [
        (
            total[at + 6] - total[at],
            total[at + 2] - total[at],
            total[at + 4] - total[at + 3],
        )
        for at in starts
    ]
    for spans in found:
        assert [sum(span.functions.values()) for span in spans] == [
            span.instructions for span in spans
        ]
        assert set(spans[0].functions) == {*_NAMES, "(other)"}
        # Cycles hold the stalls.
        assert [span.cycles for span in spans] == [11 * span.instructions for span in spans]


def test_records_are_read_and_half_ones_are_not() -> None:
    data = struct.pack("=7Q", TICKS, 100, 150, 7, 1, 3, 99) + struct.pack("=5Q", INFER, 1, 2, 3, 0)
    assert read_records(data) == [
        Record(TICKS, 100, 150, 7, {3: 99}),
        Record(INFER, 1, 2, 3, {}),
    ]
    for cut in (1, 39, 41, 57):
        with pytest.raises(ToolchainError, match="break off"):
            read_records(data[:cut])


def test_the_plugin_is_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BNNMCU_CACHE", str(tmp_path))
    first = build_plugin()
    made = first.stat().st_mtime_ns
    assert build_plugin() == first
    assert first.stat().st_mtime_ns == made
    assert [path.name for path in (tmp_path / "plugins").iterdir()] == [first.name]


@pytest.mark.parametrize(
    ("version", "api"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", 1),
        ("QEMU emulator version 8.2.2", 1),
        ("QEMU emulator version 9.0.1", 2),
        ("QEMU emulator version 9.1.0", 3),
        ("QEMU emulator version 10.0.2", 3),
        (None, 1),
    ],
)
def test_the_plugin_is_made_for_the_interface_of_this_qemu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str | None, api: int
) -> None:
    assert interface(version) == api
    # It compiles for all of them, without a warning.
    monkeypatch.setenv("BNNMCU_CACHE", str(tmp_path))
    monkeypatch.setattr(count_plugin, "FLAGS", (*count_plugin.FLAGS, "-Werror"))
    assert build_plugin(api).is_file()


def test_a_firmware_without_inferences_is_refused(
    echo: Callable[[str], BuildResult], board: Board
) -> None:
    need_toolchain("gcc")
    with pytest.raises(ToolchainError, match="bnn_infer"):
        CountPlugin(echo("gcc").elf, board)
