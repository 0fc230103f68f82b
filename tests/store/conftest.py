"""Runs that several files of tests read."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import store_rig as rig

IMAGES = 20


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 2 x 20 images; only to be read."""
    return rig.finish(tmp_path_factory.mktemp("whole") / "whole.sqlite", IMAGES)


def _unpacked(path: Path, version: int) -> Path:
    packed = Path(__file__).parent / f"data/version{version}.sqlite.gz"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    return path


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A run as version 1 of the schema had it: 8 images, one of them unanswered."""
    return _unpacked(tmp_path / "old.sqlite", 1)


@pytest.fixture
def version2(tmp_path: Path) -> Path:
    """A run as version 2 had it: 12 images in three cases and two sessions, one unanswered."""
    return _unpacked(tmp_path / "old.sqlite", 2)


@pytest.fixture(params=[1, 2])
def any_old(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, int]:
    """One of them with its version; four images a case, one unanswered."""
    return _unpacked(tmp_path / "old.sqlite", request.param), request.param
