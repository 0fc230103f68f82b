"""Images and answers: what goes into a results file, and what comes out, checked."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.store.values import MAX_CLASSES, MAX_DRAWS, MAX_LEVELS, Checker

__all__ = [
    "NO_TARGET",
    "Draw",
    "Example",
    "Stored",
    "check_board",
    "check_example",
    "pixels_sha256",
    "read_cases",
    "read_rows",
]

#: In the file, of an image that is to become any other class.
NO_TARGET = -1
_MAX_IMAGE = 2**31 - 1
# Far above any norm of pixels within [0, 1], and far below what sums could overflow.
_MAX_NORM = 1e9
_MAX_SECONDS = 1e9
_MAX_BOARD = 200


@dataclass(frozen=True, eq=False)
class Example:
    """An image as it is shown to the oracle.

    Attributes:
        attack: the case, ``clean`` or the name of an attack with its settings.
        levels: its budget in pixel levels, L-infinity or L2; 0 when clean or without one.
        image: index in the data set.
        true_label: the data's.
        pixels: uint8, shape (H, W, C).
        linf: largest change in pixel levels.
        l2: Euclidean norm of the change, in units of the pixels' range [0, 1].
        zero_gradients: share of the attack's steps without any gradient.
        crafted_by: all parameters of the attack, and what it said of this image
            (as ``estimator_kept`` which estimator's it is); empty when clean.
        target: the class that the image is to become; None: any but its own.
    """

    attack: str
    levels: int
    image: int
    true_label: int
    pixels: npt.NDArray[np.uint8]
    linf: int = 0
    l2: float = 0.0
    zero_gradients: float = 0.0
    crafted_by: Mapping[str, Any] | None = None
    target: int | None = None


@dataclass(frozen=True)
class Draw:
    """One answer.  The first three are content; the rest differs between runs.

    Attributes:
        seed: 16 hexadecimal digits, or ``unknown`` where only the device knows it.
        logits: one integer a class.
        label: where the largest is.
        session: row of the session that asked.
        board: who answered; empty if that was not said.
        answered_at: UTC, as the clock of the host said.
        latency_s: from sending the request to having the reply; None if not measured.
        attempts: transmissions needed; None where version 1 did not count them.
        ticks: of the device's counter; None without a device.
        polluted: the ticks are not to be trusted.
    """

    seed: str
    logits: tuple[int, ...]
    label: int
    session: int
    board: str
    answered_at: str
    latency_s: float | None
    attempts: int | None
    ticks: int | None
    polluted: bool


@dataclass(frozen=True)
class Stored:
    """An example with all its answers, as a file holds it; see :class:`Example`.

    Attributes:
        row: its number in the file.
        target: None where the image is to become any other class.
        pixels: H * W * C bytes; the shape is the network's.
        sha256: of these bytes.
        crafted_by: JSON text.
        draws: empty until it was answered.
        session: row of the session that crafted it; like the next two no content.
        crafted_at: UTC; None where version 1 did not say.
        crafting_s: seconds, of its chunk by its images; None if not measured.
    """

    row: int
    attack: str
    levels: int
    image: int
    target: int | None
    true_label: int
    pixels: bytes
    sha256: str
    linf: int
    l2: float
    zero_gradients: float
    crafted_by: str
    draws: tuple[Draw, ...]
    session: int
    crafted_at: str | None
    crafting_s: float | None

    def example(self, shape: tuple[int, ...]) -> Example:
        """It without its answers, to be asked again; ``shape`` is (H, W, C)."""
        return Example(
            attack=self.attack,
            levels=self.levels,
            image=self.image,
            target=self.target,
            true_label=self.true_label,
            pixels=np.frombuffer(self.pixels, np.uint8).reshape(shape),
            linf=self.linf,
            l2=self.l2,
            zero_gradients=self.zero_gradients,
            crafted_by=json.loads(self.crafted_by),
        )


def pixels_sha256(pixels: bytes) -> str:
    """Fingerprint of an image's bytes."""
    return hashlib.sha256(pixels).hexdigest()


def check_example(path: Path, one: Example) -> None:
    """Raise a StoreError for an example that could be written, but not read again."""
    check = Checker(path, f"image {one.image!r} of {one.attack!r:.40}")
    check.word("attack", one.attack)
    check.integer("levels", one.levels, 0, MAX_LEVELS)
    check.integer("image", one.image, 0, _MAX_IMAGE)
    check.integer("true_label", one.true_label, 0, MAX_CLASSES - 1)
    if one.target is not None:
        _check_target(check, one.target, one.true_label, MAX_CLASSES)
    check.integer("linf", one.linf, 0, 255)
    check.real("l2", one.l2, _MAX_NORM)
    check.real("zero_gradients", one.zero_gradients, 1.0)


def _check_target(check: Checker, target: object, true_label: int, classes: int) -> int:
    found = check.integer("target", target, 0, classes - 1)
    if found == true_label:
        raise check.fail(f"target is {found}, the image's own class")
    return found


def check_board(path: Path, board: str) -> None:
    """Raise a StoreError for a board's name that could be written, but not read again."""
    Checker(path, "an answer").text("board", board, _MAX_BOARD)


def read_cases(database: sqlite3.Connection, *, by_name: bool) -> list[tuple[Any, Any]]:
    """Attack and levels of every case: by name and budget, else in the order of crafting."""
    order = "attack, levels" if by_name else "min(id)"
    query = f"SELECT attack, levels FROM example GROUP BY attack, levels ORDER BY {order}"  # noqa: S608
    return database.execute(query).fetchall()


def read_rows(
    database: sqlite3.Connection,
    path: Path,
    images: int | None,
    cases: Iterable[tuple[Any, Any]],
) -> Iterator[Stored]:
    """The examples of some cases with their answers, each value checked.

    Args:
        database: of the present schema, open for reading.
        path: for messages.
        images: how many the data set has, if that is known.
        cases: attack and levels; in each, images ascend, and so do the targets of an image.

    Raises:
        StoreError: a value that no campaign writes.
    """
    classes: int | None = None
    for case in cases:
        last, draws = (-1, NO_TARGET), None
        for row in database.execute(
            "SELECT e.id, e.attack, e.levels, e.image, e.true_label, e.pixels, e.sha256, e.linf, "
            "e.l2, e.zero_gradients, e.crafted_by, c.session, c.at, c.seconds, e.target "
            "FROM example e LEFT JOIN crafting c ON c.example = e.id "
            "WHERE e.attack = ? AND e.levels = ? ORDER BY e.image, e.target",
            case,
        ):
            stored = _example(database, path, row, images)
            check = Checker(path, f"image {stored.image} ({stored.attack})")
            place = (stored.image, NO_TARGET if stored.target is None else stored.target)
            if stored.draws:
                own = (len(stored.draws), len(stored.draws[0].logits))
                # An attack may be judged on fewer draws than others, but on as many everywhere.
                draws, classes = draws or own[0], classes or own[1]
                if own != (draws, classes):
                    raise check.fail(f"answers of shape {own}; others have {(draws, classes)}")
            if place <= last:
                raise check.fail("stands twice in its case")
            last = place
            yield stored


def _example(
    database: sqlite3.Connection, path: Path, row: tuple[Any, ...], images: int | None
) -> Stored:
    check = Checker(path, f"example {row[0]}")
    pixels = check.blob("pixels", row[5])
    sha256 = check.hexadecimal("sha256", row[6], 64)
    if pixels_sha256(pixels) != sha256:
        raise check.fail("its pixels were altered: they have another SHA-256")
    check.mapping("crafted_by", row[10])
    top = _MAX_IMAGE if images is None else min(images - 1, _MAX_IMAGE)
    draws = _draws(database, check, row[0], sha256)
    classes = len(draws[0].logits) if draws else MAX_CLASSES
    true_label = check.integer("true_label", row[4], 0, classes - 1)
    target = None if row[14] == NO_TARGET else _check_target(check, row[14], true_label, classes)
    return Stored(
        row=check.integer("id", row[0], 1, 2**62),
        attack=check.word("attack", row[1]),
        levels=check.integer("levels", row[2], 0, MAX_LEVELS),
        image=check.integer("image", row[3], 0, top),
        target=target,
        true_label=true_label,
        pixels=pixels,
        sha256=sha256,
        linf=check.integer("linf", row[7], 0, 255),
        l2=check.real("l2", row[8], _MAX_NORM),
        zero_gradients=check.real("zero_gradients", row[9], 1.0),
        crafted_by=row[10],
        draws=draws,
        session=check.integer("session", row[11], 1, 2**62),
        crafted_at=None if row[12] is None else check.time("at", row[12]),
        crafting_s=None if row[13] is None else check.real("seconds", row[13], _MAX_SECONDS),
    )


def _draws(
    database: sqlite3.Connection, check: Checker, example: int, sha256: str
) -> tuple[Draw, ...]:
    rows = database.execute(
        "SELECT q.draw, q.input_sha256, q.seed, q.logits, q.label, t.session, t.board, "
        "t.answered_at, t.latency_s, t.attempts, t.ticks, t.polluted FROM query q "
        "LEFT JOIN timing t ON t.example = q.example AND t.draw = q.draw "
        "WHERE q.example = ? ORDER BY q.draw LIMIT ?",
        (example, MAX_DRAWS + 1),
    ).fetchall()
    if not rows:
        return ()
    if len(rows) > MAX_DRAWS:
        raise check.fail(f"more than {MAX_DRAWS} draws")
    sizes = {len(check.blob("logits", row[3])) for row in rows}
    size = sizes.pop()
    if sizes or size % 8 or not 0 < size <= 8 * MAX_CLASSES:
        raise check.fail(f"logits of {size} bytes, not 8 for each class")
    logits = np.frombuffer(b"".join(row[3] for row in rows), "<i8").reshape(len(rows), -1)
    labels = logits.argmax(axis=1).tolist()
    for i, row in enumerate(rows):
        if row[0] != i:
            raise check.fail(f"draw {i} is missing")
        if row[1] != sha256:
            raise check.fail(f"draw {i} answered another image: input_sha256 differs")
        if row[4] != labels[i]:
            raise check.fail(f"draw {i} has label {row[4]!r:.20}, its logits say {labels[i]}")
    return tuple(
        _draw(check, row, tuple(values)) for row, values in zip(rows, logits.tolist(), strict=True)
    )


def _draw(check: Checker, row: tuple[Any, ...], logits: tuple[int, ...]) -> Draw:
    """A row whose first five values were checked."""
    latency, attempts, ticks = row[8:11]
    if latency is not None:
        check.real("latency_s", latency, _MAX_SECONDS)
    if attempts is not None:
        check.integer("attempts", attempts, 1, 2**31)
    if ticks is not None:
        check.integer("ticks", ticks, 0, 2**32 - 1)
    return Draw(
        seed=check.seed("seed", row[2]),
        logits=logits,
        label=row[4],
        session=check.integer("session", row[5], 1, 2**62),
        board=check.text("board", row[6], _MAX_BOARD),
        answered_at=check.time("answered_at", row[7]),
        latency_s=latency,
        attempts=attempts,
        ticks=ticks,
        polluted=bool(check.integer("polluted", row[11], 0, 1)),
    )
