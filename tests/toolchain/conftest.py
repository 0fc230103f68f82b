"""The echo firmware, built once for each compiler."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from echo_rig import build_echo

from bnnmcu.boards import Board, load_board
from bnnmcu.toolchain.compiler import BuildResult


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
