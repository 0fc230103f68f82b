"""Builds of the C side, made once for all tests of the link."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from link_rig import CODEC_SOURCES, POOR_SOURCES, SERVER_SOURCES, Codec, ServerTransport, compile_c


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.name != "posix":
        here = str(Path(__file__).parent)
        for item in items:
            if str(item.path).startswith(here):
                item.add_marker(pytest.mark.skip(reason=f"needs POSIX pipes, not {sys.platform}"))


@pytest.fixture(scope="session")
def mnist_server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_c(tmp_path_factory.mktemp("c") / "mnist_server", SERVER_SOURCES)


@pytest.fixture(scope="session")
def cifar_server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    defines = ("-DBNN_MODEL_INPUT_BYTES=3072", "-DBNN_MODEL_LOGIT_BYTES=4")
    return compile_c(tmp_path_factory.mktemp("c") / "cifar_server", SERVER_SOURCES, *defines)


@pytest.fixture
def server(mnist_server: Path) -> Iterator[ServerTransport]:
    transport = ServerTransport(mnist_server)
    yield transport
    transport.close()


@pytest.fixture
def cifar(cifar_server: Path) -> Iterator[ServerTransport]:
    transport = ServerTransport(cifar_server)
    yield transport
    transport.close()


@pytest.fixture
def poor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerTransport]:
    program = compile_c(tmp_path_factory.mktemp("c") / "poor_server", POOR_SOURCES)
    transport = ServerTransport(program)
    yield transport
    transport.close()


@pytest.fixture(scope="session")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Codec]:
    tool = Codec(compile_c(tmp_path_factory.mktemp("c") / "codec", CODEC_SOURCES))
    yield tool
    tool.close()
