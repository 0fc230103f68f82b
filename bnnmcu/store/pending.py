"""Images that wait for an answer."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bnnmcu.store.rows import NO_TARGET, pixels_sha256
from bnnmcu.store.values import Checker

__all__ = ["Pending", "read_pending"]


class Pending(NamedTuple):
    """One of them.

    Attributes:
        row: its number in the file.
        image: index in the data set.
        target: the class that it is to become; None: any but its own.
        pixels: uint8, shape (H, W, C); not to be written to.
        details: ``crafted_by`` of :class:`bnnmcu.store.Example`.
    """

    row: int
    image: int
    target: int | None
    pixels: npt.NDArray[np.uint8]
    details: Mapping[str, Any]


def read_pending(
    database: sqlite3.Connection, path: Path, case: tuple[str, int], shape: tuple[int, int, int]
) -> list[Pending]:
    """A case's images without an answer, by index and target.

    Args:
        database: of the present schema.
        path: for messages.
        case: attack and levels.
        shape: of an image, (H, W, C).

    Raises:
        StoreError: one of them was altered.
    """
    rows = database.execute(
        "SELECT id, image, target, pixels, sha256, crafted_by FROM example "
        "WHERE attack = ? AND levels = ? "
        "AND NOT EXISTS (SELECT 1 FROM query WHERE query.example = example.id) "
        "ORDER BY image, target",
        case,
    ).fetchall()
    size = int(np.prod(shape))
    found = []
    for row, image, target, blob, sha256, crafted_by in rows:
        check = Checker(path, f"image {image} ({case[0]}, {case[1]} levels)")
        if len(blob) != size or pixels_sha256(blob) != sha256:
            raise check.fail("its pixels were altered")
        found.append(
            Pending(
                row=int(row),
                image=int(image),
                target=None if target == NO_TARGET else int(target),
                pixels=np.frombuffer(blob, np.uint8).reshape(shape),
                details=check.mapping("crafted_by", crafted_by),
            )
        )
    return found
