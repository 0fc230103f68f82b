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


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A run as version 1 of the schema had it: 8 images, one of them unanswered."""
    path = tmp_path / "old.sqlite"
    path.write_bytes(
        gzip.decompress((Path(__file__).parent / "data/version1.sqlite.gz").read_bytes())
    )
    return path
