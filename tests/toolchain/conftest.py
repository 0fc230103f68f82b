"""The echo firmware, built once for each compiler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from echo_rig import build_echo, needs, write_echo_project

from bnnmcu.boards import Board, load_board
from bnnmcu.toolchain.compiler import BuildResult, build_firmware


@pytest.fixture(scope="session")
def board() -> Board:
    return load_board("nucleo_f446re")


@pytest.fixture(scope="session")
def echo(tmp_path_factory: pytest.TempPathFactory, board: Board) -> Callable[[str], BuildResult]:
    built: dict[str, BuildResult] = {}

    def build(toolchain: str) -> BuildResult:
        if toolchain not in built:
            built[toolchain] = build_echo(tmp_path_factory.mktemp("echo"), board, toolchain)
        return built[toolchain]

    return build


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The echo firmware for a board, built once for each compiler."""
    done: dict[tuple[Board, str], Path] = {}

    def build(board: Board, toolchain: str = "gcc") -> Path:
        needs(toolchain)
        key = board, toolchain
        if key not in done:
            folder = write_echo_project(tmp_path_factory.mktemp("board"), board)
            lines: list[str] = []
            done[key] = build_firmware(folder, toolchain, log=lines.append).elf
            assert not [line for line in lines if "warning" in line]
        return done[key]

    return build
